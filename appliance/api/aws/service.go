package aws

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"log/slog"
	"math/rand/v2"
	"reflect"
	"strings"
	"sync"

	"github.com/weirhq/weir/appliance/api"
)

// ServiceOptions describes one AWS-shaped service.
type ServiceOptions struct {
	// Target is the service part of X-Amz-Target: "Kinesis_20131202".
	Target string
	// Name is the service's signing name and the prefix of its actions: "kinesis".
	Name string
	// JSONVersion is the protocol's version in the content type; "1.1" if empty.
	JSONVersion string
	// CBOR tells whether bodies may be application/x-amz-cbor-<JSONVersion>.
	CBOR bool
	// ErrorPrefix is put before the names of the service's own errors in __type:
	// "com.amazonaws.dynamodb.v20120810#". Usually empty.
	ErrorPrefix string
	// Model holds the constraint tables; needed.
	Model *Model
	// Logger gets internal failures with their causes; slog.Default() if nil.
	Logger *slog.Logger
}

// Operation is one operation of a service, made by Op or RawOp.
type Operation struct {
	name    string
	action  string
	compile func(*Model)
	run     func(ctx context.Context, c *Call) error
}

// Empty is the output of operations that answer without a body.
type Empty struct{}

// Op makes an operation of a function over a decoded and validated input. A nil
// output, or *Empty, answers 200 with no body. An error is answered as AsError says.
func Op[In, Out any](name string, fn func(ctx context.Context, c *Call, in *In) (*Out, error)) Operation {
	return Operation{
		name:    name,
		compile: func(m *Model) { m.planOf(reflect.TypeFor[In]()); m.planOf(reflect.TypeFor[Out]()) },
		run: func(ctx context.Context, c *Call) error {
			in := new(In)
			if err := c.Decode(in); err != nil {
				return err
			}
			out, err := fn(ctx, c, in)
			if err != nil {
				return err
			}
			if _, empty := any(out).(*Empty); !empty && out != nil {
				c.Answer(out)
			}
			return nil
		},
	}
}

// RawOp makes an operation that reads the body and writes the answer itself, for
// the hot paths and for streams.
func RawOp(name string, fn func(ctx context.Context, c *Call) error) Operation {
	return Operation{name: name, compile: func(*Model) {}, run: fn}
}

// Call is one call of an operation. It and what it gives out are valid until the
// operation returns; a stream function must not touch it.
type Call struct {
	// Request and Response are the exchange below.
	Request  api.Request
	Response api.Response
	// Operation is the operation's name.
	Operation string
	// Encoding is that of the request body, and so of the answer.
	Encoding Encoding

	service *Service
	op      *Operation
	writer  Writer
	asked   bool
}

// Body is the request body.
func (c *Call) Body() []byte { return c.Request.Body() }

// Identity is who calls; never nil in an operation.
func (c *Call) Identity() *api.Identity { return c.Request.Identity() }

// Authorize returns an AccessDeniedException unless the caller may perform this
// operation on the named stream or delivery stream; "" when it is about none.
// Every operation has to ask before it acts.
func (c *Call) Authorize(stream string) error { return c.AuthorizeAction(c.op.action, stream) }

// AuthorizeAction is Authorize for another action ("kinesis:DescribeStream").
func (c *Call) AuthorizeAction(action, stream string) error {
	c.asked = true
	if c.Identity().Allows(action, stream) {
		return nil
	}
	name := "nobody"
	if id := c.Identity(); id != nil {
		name = id.Name
	}
	resource := stream
	if resource == "" {
		resource = "*"
	}
	return AccessDenied.New("User: %s is not authorized to perform: %s on resource: %s because no policy of this server allows the %s action",
		name, action, resource, action)
}

// Decode reads the body into an input structure and validates it.
func (c *Call) Decode(in any) error {
	return c.service.o.Model.Decode(c.Encoding, c.Request.Body(), in)
}

// Answer writes an output structure as the body.
func (c *Call) Answer(out any) {
	w := c.Writer()
	c.service.o.Model.Encode(w, out)
	c.Finish(w)
}

// Writer returns a Writer on the answer's buffer, in the call's encoding. Finish
// has to be called when the body is written.
func (c *Call) Writer() *Writer {
	c.writer = Writer{Buf: *c.Response.Body(), Encoding: c.Encoding}
	return &c.writer
}

// Finish makes what w holds the answer's body.
func (c *Call) Finish(w *Writer) { *c.Response.Body() = w.Buf }

// Service dispatches requests to operations. It is an api.Handler and refuses
// strangers in AWS's words.
type Service struct {
	o        ServiceOptions
	ops      map[string]*Operation
	jsonType string
	cborType string
	calls    sync.Pool
}

var (
	_ api.Handler = (*Service)(nil)
	_ api.Refuser = (*Service)(nil)
)

// NewService makes a service of operations. Names used twice and types that the
// model cannot express panic: they are bugs in the tables.
func NewService(o ServiceOptions, ops ...Operation) *Service {
	if o.JSONVersion == "" {
		o.JSONVersion = "1.1"
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	s := &Service{
		o: o, ops: map[string]*Operation{},
		jsonType: "application/x-amz-json-" + o.JSONVersion,
		cborType: "application/x-amz-cbor-" + o.JSONVersion,
	}
	s.calls.New = func() any { return new(Call) }
	for i := range ops {
		op := &ops[i]
		if s.ops[op.name] != nil {
			panic("BUG: operation " + op.name + " is there twice")
		}
		op.action = o.Name + ":" + op.name
		op.compile(o.Model)
		s.ops[op.name] = op
	}
	return s
}

// Operations returns the names of the operations, in no order.
func (s *Service) Operations() []string {
	names := make([]string, 0, len(s.ops))
	for name := range s.ops {
		names = append(names, name)
	}
	return names
}

// Serve answers one request.
func (s *Service) Serve(ctx context.Context, req api.Request, res api.Response) {
	op, enc := s.admit(req, res)
	if op == nil {
		return
	}
	c := s.calls.Get().(*Call)
	*c = Call{Request: req, Response: res, Operation: op.name, Encoding: enc, service: s, op: op}
	defer func() {
		*c = Call{}
		s.calls.Put(c)
	}()
	res.SetHeader("Content-Type", s.contentType(enc))
	if err := op.run(ctx, c); err != nil {
		s.fail(c, err)
		return
	}
	if !c.asked {
		panic("BUG: operation " + op.name + " answered without asking whether the caller may")
	}
}

// Refuse answers a request whose sender is not known. What AWS complains about
// before it looks at the signature is complained about first, too.
func (s *Service) Refuse(_ context.Context, req api.Request, res api.Response, why *api.Refusal) {
	op, enc := s.admit(req, res)
	if op == nil {
		return
	}
	if body := req.Body(); why.Status <= 403 && len(body) <= maxCheckedBytes && !wellFormed(enc, body) {
		s.writeError(res, enc, &Error{Kind: Serialization})
		return
	}
	s.writeError(res, enc, &Error{Kind: refusalKind(why), Message: why.Message})
}

// maxCheckedBytes bounds the work that is done for somebody who isn't let in.
const maxCheckedBytes = 64 << 10

// Unrouted answers requests that are meant for a service that isn't here, as AWS does.
func Unrouted() *Service {
	return NewService(ServiceOptions{Target: "-", Name: "-", CBOR: true, Model: NewModel(nil)})
}

// IsCall tells whether a request is, by its content type, one for a service of this kind.
func IsCall(req api.Request) bool {
	return bytes.HasPrefix(req.Header("Content-Type"), []byte("application/x-amz-")) && req.Method() == "POST"
}

func refusalKind(why *api.Refusal) *ErrorKind {
	for _, k := range ErrorTable() {
		if k.Name == why.Code {
			return k
		}
	}
	return &ErrorKind{Name: why.Code, Status: why.Status}
}

// admit does the checks that come before the signature and returns the operation,
// or nil when it has answered.
func (s *Service) admit(req api.Request, res api.Response) (*Operation, Encoding) {
	SetRequestIDs(res)
	if len(req.Header("Origin")) > 0 && s.crossOrigin(req, res) {
		return nil, JSON
	}
	if req.Method() != "POST" {
		refuseXML(res, 403, noOperation)
		return nil, JSON
	}
	enc, known := s.encodingOf(req.Header("Content-Type"))
	service, operation, _ := strings.Cut(string(req.Header("X-Amz-Target")), ".")
	var op *Operation
	if service == s.o.Target {
		op = s.ops[operation]
	}
	switch {
	case !known && isPlainJSON(req.Header("Content-Type")):
		res.SetHeader("Content-Type", "application/json")
		name := "UnknownOperationException"
		if !wellFormed(JSON, req.Body()[:min(len(req.Body()), maxCheckedBytes)]) {
			name = "SerializationException"
		}
		res.SetStatus(404)
		*res.Body() = append((*res.Body())[:0], `{"Output":{"__type":"com.amazon.coral.service#`+name+`","message":null},"Version":"1.0"}`...)
		return nil, JSON
	case !known && (service == "" || operation == ""):
		refuseXML(res, 403, noOperation)
		return nil, JSON
	case !known:
		refuseXML(res, 404, "<UnknownOperationException/>\n")
		return nil, JSON
	case op == nil:
		s.writeError(res, enc, &Error{Kind: UnknownOperation})
		return nil, JSON
	}
	return op, enc
}

const noOperation = "<AccessDeniedException>\n  <Message>Unable to determine service/operation name to be authorized</Message>\n</AccessDeniedException>\n"

func refuseXML(res api.Response, status int, body string) {
	res.SetStatus(status)
	res.SetHeader("Content-Type", "text/xml")
	*res.Body() = append((*res.Body())[:0], body...)
}

// crossOrigin adds what browsers want to see; true when that is the whole answer.
func (s *Service) crossOrigin(req api.Request, res api.Response) bool {
	res.SetHeader("Access-Control-Allow-Origin", "*")
	if req.Method() != "OPTIONS" {
		res.SetHeader("Access-Control-Expose-Headers",
			"x-amzn-RequestId,x-amzn-ErrorType,x-amz-request-id,x-amz-id-2,x-amzn-ErrorMessage,Date")
		return false
	}
	if h := req.Header("Access-Control-Request-Headers"); len(h) > 0 {
		res.SetHeader("Access-Control-Allow-Headers", string(h))
	}
	if h := req.Header("Access-Control-Request-Method"); len(h) > 0 {
		res.SetHeader("Access-Control-Allow-Methods", string(h))
	}
	res.SetHeader("Access-Control-Max-Age", "172800")
	return true
}

func (s *Service) contentType(enc Encoding) string {
	if enc == CBOR {
		return s.cborType
	}
	return s.jsonType
}

// encodingOf reads a content type: any letter case, parameters are ignored.
func (s *Service) encodingOf(contentType []byte) (Encoding, bool) {
	contentType = mediaType(contentType)
	switch {
	case equalFold(contentType, s.jsonType):
		return JSON, true
	case s.o.CBOR && equalFold(contentType, s.cborType):
		return CBOR, true
	}
	return JSON, false
}

func isPlainJSON(contentType []byte) bool {
	return equalFold(mediaType(contentType), "application/json")
}

func mediaType(contentType []byte) []byte {
	if semicolon := bytes.IndexByte(contentType, ';'); semicolon >= 0 {
		contentType = contentType[:semicolon]
	}
	return bytes.TrimSpace(contentType)
}

func equalFold(a []byte, b string) bool {
	return len(a) == len(b) && strings.EqualFold(string(a), b)
}

// fail answers an operation's error and logs what is our own fault.
func (s *Service) fail(c *Call, err error) {
	e := AsError(err)
	if e.Kind.Status >= 500 {
		s.o.Logger.Error("operation failed", "operation", c.op.action, "error", err)
	}
	s.writeError(c.Response, c.Encoding, e)
}

func (s *Service) writeError(res api.Response, enc Encoding, e *Error) {
	WriteError(res, s.contentType(enc), enc, s.o.ErrorPrefix, e)
}

// WriteError answers e in an encoding: __type with the prefix, the message (with a
// capital in SerializationExceptions, as the front end of AWS has it), and
// x-amzn-ErrorType, which newer clients read first.
func WriteError(res api.Response, contentType string, enc Encoding, prefix string, e *Error) {
	res.SetStatus(e.Kind.Status)
	res.SetHeader("Content-Type", contentType)
	res.SetHeader("X-Amzn-Errortype", e.Kind.Name)
	w := Writer{Buf: (*res.Body())[:0], Encoding: enc}
	w.BeginMap()
	w.Key("__type")
	w.String(prefix + e.Kind.Name)
	if e.Message != "" {
		if e.Kind == Serialization {
			w.Key("Message")
		} else {
			w.Key("message")
		}
		w.String(e.Message)
	}
	w.EndMap()
	*res.Body() = w.Buf
}

// SetRequestIDs gives the answer the two identifiers that AWS gives every answer.
// They name the exchange in logs; nothing depends on their being unguessable. The
// first, 36 characters long, is returned.
func SetRequestIDs(res api.Response) string {
	var raw [72]byte
	for i := 0; i < len(raw); i += 8 {
		binary.LittleEndian.PutUint64(raw[i:], rand.Uint64())
	}
	var text [36 + 96]byte
	id := text[:36]
	raw[6], raw[8] = raw[6]&0x0f|0x40, raw[8]&0x3f|0x80
	hex.Encode(id[0:8], raw[0:4])
	id[8], id[13], id[18], id[23] = '-', '-', '-', '-'
	hex.Encode(id[9:13], raw[4:6])
	hex.Encode(id[14:18], raw[6:8])
	hex.Encode(id[19:23], raw[8:10])
	hex.Encode(id[24:36], raw[10:16])
	base64.StdEncoding.Encode(text[36:], raw[:])
	ids := string(text[:])
	res.SetHeader("X-Amzn-Requestid", ids[:36])
	res.SetHeader("X-Amz-Id-2", ids[36:])
	return ids[:36]
}
