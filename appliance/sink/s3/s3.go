package s3

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
	"unicode/utf8"

	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"github.com/minio/minio-go/v7/pkg/encrypt"

	"github.com/weirhq/weir/appliance/delivery"
)

// Sink is an open s3 sink.
type Sink struct {
	settings  Settings
	core      *minio.Core
	transport *http.Transport
	signer    *signer
	secure    bool
	sse       encrypt.ServerSide
	// unconditional is set when the store has said that it doesn't know
	// If-None-Match; from then on a HEAD comes first.
	unconditional atomic.Bool
}

var _ delivery.ObjectSink = (*Sink)(nil)

// Open returns the sink. It connects to nothing. clock may be nil.
func Open(s Settings, clock func() time.Time) (*Sink, error) {
	s = s.withDefaults()
	if err := s.Validate(); err != nil {
		return nil, err
	}
	if clock == nil {
		clock = time.Now
	}
	u, err := url.Parse(s.Endpoint)
	if err != nil {
		return nil, err
	}
	transport, err := newTransport(&s)
	if err != nil {
		return nil, err
	}
	out := &Sink{settings: s, transport: transport, secure: u.Scheme == "https"}
	out.signer = &signer{
		base: transport, region: s.Region, clock: clock,
		v4: v4.NewSigner(func(o *v4.SignerOptions) { o.DisableURIPathEscaping = true }),
	}
	role := &roleTransport{signer: out.signer}
	out.signer.client = &http.Client{Transport: role, Timeout: time.Duration(s.Timeout)}
	if out.signer.creds, role.own, err = creds(&s); err != nil {
		return nil, err
	}
	lookup := minio.BucketLookupDNS
	if *s.PathStyle {
		lookup = minio.BucketLookupPath
	}
	out.core, err = minio.NewCore(u.Host, &minio.Options{
		Secure: out.secure, Region: s.Region, BucketLookup: lookup, Transport: out.signer, MaxRetries: 1,
	})
	if err != nil {
		return nil, err
	}
	switch s.SSE {
	case "AES256":
		out.sse = encrypt.NewSSE()
	case "aws:kms":
		if out.sse, err = encrypt.NewSSEKMS(s.KMSKeyID, nil); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// creds is where the credentials come from, nil for a store without, and with a role
// those with which it is assumed.
func creds(s *Settings) (used, own *credentials.Credentials, err error) {
	switch {
	case s.Source == "instance":
		own = credentials.NewIAM(s.MetadataEndpoint)
	case s.AccessKeyID != "":
		own = credentials.NewStaticV4(s.AccessKeyID, string(s.SecretAccessKey), string(s.SessionToken))
	}
	if s.RoleARN == "" {
		return own, nil, nil
	}
	used, err = credentials.NewSTSAssumeRole(s.STSEndpoint, credentials.STSAssumeRoleOptions{
		AccessKey: "own", SecretKey: "own", // roleTransport signs, with what own gives at the time
		Location: s.Region, RoleARN: s.RoleARN, RoleSessionName: "weir", ExternalID: s.ExternalID,
	})
	return used, own, err
}

// Close drops idle connections.
func (s *Sink) Close() error {
	s.transport.CloseIdleConnections()
	return nil
}

// Metered says that the store is reached over the uplink.
func (s *Sink) Metered() bool { return true }

// PutObject stores o. Up to the buffer's capacity the object is gathered and
// sent in one PUT; a larger one whose rendering is cheap is measured first and
// sent in one PUT all the same; otherwise it goes in parts as large as the
// buffer.
func (s *Sink) PutObject(ctx context.Context, o *delivery.Object) (delivery.Stored, error) {
	if err := checkName(o.Key); err != nil {
		return delivery.Stored{}, &delivery.SinkError{Code: "S3.BadName", Refused: true, BadName: true, Err: err}
	}
	if o.MayExist || s.unconditional.Load() {
		stored, there, err := s.stat(ctx, o)
		// Where the store creates only, asking first just saves an upload. A refusal to answer is left to the PUT:
		// its answer has a body that says why, and it may be allowed when to read is not.
		refused := (*notTold)(nil)
		if there || err != nil && !s.signer.skewed.Load() && (!errors.As(err, &refused) || s.unconditional.Load() || o.Replace) {
			return stored, err
		}
	}
	stored, err := s.put(ctx, o)
	if err != nil && s.signer.skewed.Load() {
		stored, err = s.put(ctx, o) // signed with the server's time now
	}
	return stored, err
}

// maxName is the most bytes in the name of an object in S3.
const maxName = 1024

// checkName refuses what no store takes, and what leads out of the bucket's folder in
// those that keep objects as files.
func checkName(key string) error {
	switch {
	case len(key) > maxName:
		return fmt.Errorf("object name has %d bytes; the limit is %d", len(key), maxName)
	case !utf8.ValidString(key) || strings.IndexByte(key, 0) >= 0:
		return fmt.Errorf("object name %q is not text", key)
	}
	for element := range strings.SplitSeq(key, "/") {
		if element == "." || element == ".." {
			return fmt.Errorf("object name %q has %q between slashes", key, element)
		}
	}
	return nil
}

// badNames are the codes with which stores refuse a name for good; the last two are of those that keep
// objects as files, and what versitygw says of a name too long for one.
var badNames = []string{"KeyTooLongError", "KeyTooLong", "XMinioInvalidObjectName", "InvalidObjectName", "ExistingObjectIsDirectory", "ObjectParentIsFile"}

func (s *Sink) put(ctx context.Context, o *delivery.Object) (delivery.Stored, error) {
	u := &upload{sink: s, ctx: ctx, object: o, buffer: o.Buffer[:0]}
	err := o.Render(u)
	if err == nil && u.counting {
		return s.putMeasured(ctx, o, u.size)
	}
	if err == nil {
		err = u.finish()
	}
	if err != nil {
		u.abort()
		if errors.Is(err, delivery.ErrNoRecords) {
			return delivery.Stored{}, delivery.ErrNoRecords
		}
		return s.settle(ctx, o, err)
	}
	return delivery.Stored{Bytes: u.size}, nil
}

// settle decides what a failed attempt means: an object that is there and
// carries our recipe is a success.
func (s *Sink) settle(ctx context.Context, o *delivery.Object, err error) (delivery.Stored, error) {
	e := minio.ToErrorResponse(err)
	if e.StatusCode == http.StatusPreconditionFailed || e.Code == "PreconditionFailed" {
		stored, there, statErr := s.stat(ctx, o)
		switch {
		case statErr != nil:
			return delivery.Stored{}, s.unread(o, statErr)
		case there:
			return stored, nil
		}
		return delivery.Stored{}, s.torn(o)
	}
	none := (*noCredentials)(nil)
	if e.StatusCode == 0 && ctx.Err() == nil && !isDial(err) && !errors.As(err, &none) {
		// The answer is lost: the object may be there.
		if stored, there, statErr := s.stat(ctx, o); statErr == nil && there {
			return stored, nil
		}
	}
	if e.StatusCode == http.StatusNotImplemented && !s.unconditional.Load() {
		s.unconditional.Store(true)
	}
	return delivery.Stored{}, s.sinkError(err)
}

// torn is the answer of a store that contradicts itself: one that has lost an
// object's data and kept its metadata, or the other way round.
func (s *Sink) torn(o *delivery.Object) error {
	what := fmt.Sprintf("in %d such answers in a row it is stored over it, with the same name and the same records", delivery.TornAfter)
	if o.Replace {
		what = "and will not have it replaced. Remove it in the store, or repair the store"
	}
	return &delivery.SinkError{
		Code: "S3.ObjectTorn", Torn: true,
		Err: fmt.Errorf("the store says that %s/%s is there when it is to be created (HTTP 412), and that it is not when it is asked for (HTTP 404); %s", s.settings.Bucket, o.Key, what),
	}
}

// notTold is the cause when a store refuses to say whether an object is there.
type notTold struct{ error }

// unread adds to such a refusal what it is about when the name is taken.
func (s *Sink) unread(o *delivery.Object, err error) error {
	if refused := (*notTold)(nil); errors.As(err, &refused) {
		var e *delivery.SinkError
		errors.As(err, &e)
		e.Refused = false
		e.Err = fmt.Errorf("%s/%s is there, and the store refuses to say whether it is ours: %w. The credentials need the right to read objects (s3:GetObject)", s.settings.Bucket, o.Key, e.Err)
	}
	return err
}

// stat asks whether the object is there by an earlier attempt.
func (s *Sink) stat(ctx context.Context, o *delivery.Object) (delivery.Stored, bool, error) {
	info, err := s.core.StatObject(ctx, s.settings.Bucket, o.Key, minio.StatObjectOptions{})
	if err != nil {
		e := minio.ToErrorResponse(err)
		if e.StatusCode == http.StatusNotFound && e.Code != "NoSuchBucket" {
			return delivery.Stored{}, false, nil
		}
		out := s.sinkError(err)
		if e.StatusCode == http.StatusBadRequest || e.StatusCode == http.StatusUnauthorized || e.StatusCode == http.StatusForbidden {
			out.Err = &notTold{out.Err}
		}
		return delivery.Stored{}, false, out
	}
	want := o.Metadata[delivery.RecipeKey]
	got := info.Metadata.Get("X-Amz-Meta-" + delivery.RecipeKey)
	if got != want {
		return delivery.Stored{}, false, &delivery.SinkError{
			Code: "S3.ObjectExists", Err: fmt.Errorf("%s/%s is there and is not ours (recipe %q, expected %q)", s.settings.Bucket, o.Key, got, want),
		}
	}
	return delivery.Stored{Bytes: info.Size, Duplicate: true}, true, nil
}

// options are those of every way of storing an object. create makes it fail
// when the name is taken.
func (s *Sink) options(o *delivery.Object, create bool) minio.PutObjectOptions {
	opts := minio.PutObjectOptions{
		UserMetadata: o.Metadata, ContentType: o.ContentType, StorageClass: s.settings.StorageClass, UserTags: s.settings.Tags,
		ServerSideEncryption: s.sse, DisableContentSha256: true, SendContentMd5: false,
	}
	if create && !s.unconditional.Load() && !o.Replace {
		opts.SetMatchETagExcept("*")
	}
	return opts
}

// putBuffer stores what is in memory by one PUT.
func (s *Sink) putBuffer(ctx context.Context, o *delivery.Object, data []byte) error {
	_, err := s.core.PutObject(s.hashed(ctx, data), s.settings.Bucket, o.Key, o.Throttle(bytes.NewReader(data)), int64(len(data)), "", "", s.options(o, true))
	return err
}

// hashed has a body in memory signed where nothing else protects it.
func (s *Sink) hashed(ctx context.Context, data []byte) context.Context {
	if s.secure || s.signer.creds == nil {
		return ctx
	}
	sum := sha256.Sum256(data)
	return context.WithValue(ctx, payloadHash{}, hex.EncodeToString(sum[:]))
}

// putMeasured renders an object of known size straight into one PUT, or into
// parts when it is over the limit.
func (s *Sink) putMeasured(ctx context.Context, o *delivery.Object, size int64) (delivery.Stored, error) {
	if size > s.settings.SinglePutBytes {
		parts := *o
		parts.Cheap = false
		return s.put(ctx, &parts)
	}
	r, w := io.Pipe()
	rendered := make(chan error, 1)
	go func() {
		err := o.Render(w)
		rendered <- errors.Join(err, w.CloseWithError(err))
	}()
	_, err := s.core.PutObject(ctx, s.settings.Bucket, o.Key, o.Throttle(r), size, "", "", s.options(o, true))
	_ = r.CloseWithError(errors.New("upload ended"))
	<-rendered
	if err != nil {
		return s.settle(ctx, o, err)
	}
	return delivery.Stored{Bytes: size}, nil
}

// upload is the writer that an object is rendered into.
type upload struct {
	sink     *Sink
	ctx      context.Context
	object   *delivery.Object
	buffer   []byte
	size     int64
	counting bool // only the size is wanted any more
	id       string
	parts    []minio.CompletePart
	err      error
}

func (u *upload) Write(p []byte) (int, error) {
	n := len(p)
	u.size += int64(n)
	for len(p) > 0 && !u.counting {
		if u.err != nil {
			return 0, u.err
		}
		if len(u.buffer) == cap(u.buffer) {
			if u.object.Cheap {
				u.counting = true
				break
			}
			if u.err = u.part(); u.err != nil {
				return 0, u.err
			}
		}
		k := min(len(p), cap(u.buffer)-len(u.buffer))
		u.buffer = append(u.buffer, p[:k]...)
		p = p[k:]
	}
	return n, u.ctx.Err()
}

// part sends a full buffer. The first one begins the upload in parts.
func (u *upload) part() error {
	s := u.sink
	if u.id == "" {
		if u.object.MayExist {
			s.abortOthers(u.ctx, u.object.Key)
		}
		id, err := s.core.NewMultipartUpload(u.ctx, s.settings.Bucket, u.object.Key, s.options(u.object, false))
		if err != nil {
			return err
		}
		u.id = id
	}
	number := len(u.parts) + 1
	p, err := s.core.PutObjectPart(s.hashed(u.ctx, u.buffer), s.settings.Bucket, u.object.Key, u.id, number,
		u.object.Throttle(bytes.NewReader(u.buffer)), int64(len(u.buffer)), minio.PutObjectPartOptions{DisableContentSha256: true})
	if err != nil {
		return err
	}
	u.parts = append(u.parts, minio.CompletePart{PartNumber: number, ETag: p.ETag})
	u.buffer = u.buffer[:0]
	return nil
}

func (u *upload) finish() error {
	if u.id == "" {
		return u.sink.putBuffer(u.ctx, u.object, u.buffer)
	}
	if len(u.buffer) > 0 {
		if err := u.part(); err != nil {
			return err
		}
	}
	opts := minio.PutObjectOptions{}
	if !u.sink.unconditional.Load() && !u.object.Replace {
		opts.SetMatchETagExcept("*")
	}
	_, err := u.sink.core.CompleteMultipartUpload(u.ctx, u.sink.settings.Bucket, u.object.Key, u.id, u.parts, opts)
	return err
}

// abortTime is how long clearing up after a failure may take.
const abortTime = 10 * time.Second

// abort removes the parts of an upload that will not be finished.
func (u *upload) abort() {
	if u.id == "" {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(u.ctx), abortTime)
	defer cancel()
	// A failure leaves parts, which the next attempt or the bucket's own
	// rule removes.
	_ = u.sink.core.AbortMultipartUpload(ctx, u.sink.settings.Bucket, u.object.Key, u.id)
}

// abortOthers removes the parts that a crash left behind.
func (s *Sink) abortOthers(ctx context.Context, key string) {
	list, err := s.core.ListMultipartUploads(ctx, s.settings.Bucket, key, "", "", "", 100)
	if err != nil {
		return // not every store can list them
	}
	for _, m := range list.Uploads {
		if m.Key == key {
			_ = s.core.AbortMultipartUpload(ctx, s.settings.Bucket, key, m.UploadID)
		}
	}
}

// sinkError gives an error its code.
func (s *Sink) sinkError(err error) *delivery.SinkError {
	out := &delivery.SinkError{Code: "S3.ConnectionFailed", Err: err}
	e := minio.ToErrorResponse(err)
	none := (*noCredentials)(nil)
	switch {
	case errors.As(err, &none):
		out.Code, out.Refused = "S3.Credentials", true
		out.Err = fmt.Errorf("no credentials from %s: %w", s.settings.issuer(), none.cause)
	case e.StatusCode != 0:
		out.Code = "S3." + e.Code
		if e.Code == "" {
			out.Code = fmt.Sprintf("S3.Status%d", e.StatusCode)
		}
		out.BadName = slices.Contains(badNames, e.Code)
		out.Refused = out.BadName || e.StatusCode >= 400 && e.StatusCode < 500 && e.StatusCode != http.StatusConflict &&
			e.StatusCode != http.StatusPreconditionFailed && e.StatusCode != http.StatusRequestTimeout
		out.Err = fmt.Errorf("%s (HTTP %d)", e.Message, e.StatusCode)
		if s.signer.creds == nil && (e.StatusCode == http.StatusForbidden || e.StatusCode == http.StatusUnauthorized) {
			out.Err = fmt.Errorf("%w; the sink has no credentials. It takes access_key_id and secret_access_key, which weir delivery create --to s3:// has from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or source: instance", out.Err)
		}
		if e.Code == "ExpiredToken" || e.Code == "InvalidAccessKeyId" || e.Code == "ExpiredTokenException" {
			if s.signer.creds != nil {
				s.signer.creds.Expire()
			}
		}
	case isDial(err):
		out.Refused = true
	case isCertificate(err):
		out.Code, out.Refused = "S3.SSLHandshake", true
	case errors.Is(err, context.DeadlineExceeded):
		out.Code = "S3.RequestTimeout"
	case errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.Is(err, io.ErrUnexpectedEOF):
		out.Code = "S3.ConnectionReset"
	}
	out.RetryAfter = time.Duration(s.signer.retryAfter.Load())
	return out
}

// isDial says whether no connection came about, so that nothing was sent.
func isDial(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}

// isCertificate says whether the store is not who it should be.
func isCertificate(err error) bool {
	var e *tls.CertificateVerificationError
	return errors.As(err, &e)
}

// Probe stores a small object twice, create only, and removes it.
func (s *Sink) Probe(ctx context.Context) (delivery.Probed, error) {
	key := ".weir-probe-" + rand.Text()
	o := &delivery.Object{
		Key: key, ContentType: "text/plain", Metadata: map[string]string{delivery.RecipeKey: key}, Buffer: make([]byte, 0, 1<<10),
		Throttle: func(r io.Reader) io.Reader { return r },
		Render: func(w io.Writer) error {
			_, err := io.WriteString(w, "weir probe\n")
			return err
		},
	}
	if _, err := s.PutObject(ctx, o); err != nil {
		return delivery.Probed{}, err
	}
	guarantee := delivery.ExactlyOnce
	err := s.putBuffer(ctx, o, []byte("weir probe again\n"))
	switch e := minio.ToErrorResponse(err); {
	case err == nil:
		guarantee = delivery.ByName // the store overwrote: it ignores the condition
	case e.StatusCode == http.StatusPreconditionFailed:
	case e.StatusCode == http.StatusNotImplemented:
		guarantee = delivery.ByName
	default:
		return delivery.Probed{}, s.sinkError(err)
	}
	if _, there, err := s.stat(ctx, o); err != nil {
		return delivery.Probed{}, err
	} else if !there {
		guarantee = delivery.AtLeastOnce
	}
	if err := s.core.RemoveObject(ctx, s.settings.Bucket, key, minio.RemoveObjectOptions{}); err != nil {
		return delivery.Probed{}, s.sinkError(err)
	}
	return delivery.Probed{Guarantee: guarantee, Tried: "reached, written, asked for and removed"}, nil
}
