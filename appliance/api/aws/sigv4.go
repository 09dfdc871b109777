package aws

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"fmt"
	"hash"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unsafe"

	"github.com/weirhq/weir/appliance/api"
)

// Credential is an access key as the configuration has it.
type Credential struct {
	// SecretAccessKey is the shared secret.
	SecretAccessKey string
	// SessionToken has to come with the request if it is not empty, and none may
	// come if it is.
	SessionToken string
	// Identity is who holds the key.
	Identity *api.Identity
}

// Keyring finds access keys. Lookup is called for every request, from many
// goroutines, and must not keep its argument.
type Keyring interface {
	Lookup(accessKeyID string) (Credential, bool)
}

// VerifierOptions says what signatures are accepted.
type VerifierOptions struct {
	// Keyring holds the access keys; needed.
	Keyring Keyring
	// Regions are the regions that may stand in a credential scope; any if empty.
	Regions []string
	// ClockTolerance is how far a request's time may be from ours; 15 minutes if
	// zero, without bound if negative. A request with X-Amz-Expires may be as far
	// ahead of our time, but ends when it says.
	ClockTolerance time.Duration
	// AllowUnsignedPayload accepts UNSIGNED-PAYLOAD in cleartext, too. Over TLS it
	// always is.
	AllowUnsignedPayload bool
	// Clock is time.Now if nil.
	Clock func() time.Time
}

// DefaultClockTolerance is what AWS grants.
const DefaultClockTolerance = 15 * time.Minute

// maxPresigned is the longest life of a signature in a query string.
const maxPresigned = 7 * 24 * time.Hour

// maxSigningKeys bounds the cache of signing keys; when it is full it is emptied.
const maxSigningKeys = 1024

// Verifier checks AWS Signature Version 4, in the Authorization header or in the
// query string, as the AWS front end does and with its error texts. Bodies are
// covered by their hash; UNSIGNED-PAYLOAD as the options say; the aws-chunked
// STREAMING-* forms are refused, since none of the services here has them.
type Verifier struct {
	o       VerifierOptions
	states  sync.Pool
	mu      sync.RWMutex
	signing map[signingScope]*signingKey
}

// signingScope is what a signing key depends on, besides the secret.
type signingScope struct{ accessKeyID, date, region, service string }

// signingKey is a derived key, ready to be used.
type signingKey struct {
	secret string
	macs   sync.Pool // of hash.Hash over the key
}

// NewVerifier returns a Verifier.
func NewVerifier(o VerifierOptions) *Verifier {
	if o.ClockTolerance == 0 {
		o.ClockTolerance = DefaultClockTolerance
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	v := &Verifier{o: o, signing: map[signingScope]*signingKey{}}
	v.states.New = func() any {
		st := new(sigState)
		st.visit = func(name, value []byte) { st.headers = append(st.headers, headerLine{name, value}) }
		return st
	}
	return v
}

// sigState is the scratch memory of one verification. Its strings and slices alias the request.
type sigState struct {
	claim
	headers   []headerLine
	visit     func(name, value []byte)
	canonical []byte
	toSign    []byte
	params    []queryParam
	sum       [sha256.Size]byte
}

type headerLine struct{ name, value []byte }

type queryParam struct{ name, value []byte }

// claim is what a signed request says of itself.
type claim struct {
	inQuery                            bool
	algorithm                          string
	credential, signedHeaders          string
	signature                          string
	dateText                           string
	expires                            time.Duration
	when                               time.Time
	accessKeyID, date, region, service string
	token                              []byte
	payload                            []byte // X-Amz-Content-Sha256
}

// view returns b as a string that lives as long as b does.
func view(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// Signed tells whether the request carries a signature of this kind, good or not.
func Signed(req api.Request) bool {
	return bytes.HasPrefix(req.Header("Authorization"), []byte("AWS4-")) ||
		bytes.Contains(req.RawQuery(), []byte("X-Amz-Algorithm="))
}

// Screen does those checks of Verify that need no body: is the request signed with
// a key that exists, now and for this service.
func (v *Verifier) Screen(req api.Request, service string) *Error {
	st := v.state(req)
	defer v.release(st)
	_, err := v.parse(st, req, service)
	return err
}

// Claimed returns the id of the access key that the request says it is signed
// with, valid as long as the request; empty if it does not say.
func (v *Verifier) Claimed(req api.Request) string {
	st := v.states.Get().(*sigState)
	defer v.release(st)
	if auth := req.Header("Authorization"); len(auth) > 0 {
		_ = st.fromHeader(req, auth)
	} else {
		st.params = st.params[:0]
		_ = st.fromQuery(req.RawQuery())
	}
	id, _, _ := strings.Cut(st.credential, "/")
	return id
}

// Knows tells whether there is such an access key.
func (v *Verifier) Knows(accessKeyID string) bool {
	_, known := v.o.Keyring.Lookup(accessKeyID)
	return known
}

// Verify returns who signed the request. service is the signing name that has to
// be in the scope; any if empty. The request must not have changed on its way: the
// signature covers method, path, query, the signed headers, Host (or :authority)
// and X-Amz-Target being among them, and the body.
func (v *Verifier) Verify(req api.Request, service string) (*api.Identity, *Error) {
	st := v.state(req)
	defer v.release(st)
	cred, err := v.parse(st, req, service)
	if err != nil {
		return nil, err
	}
	if err := v.payloadHash(st, req); err != nil {
		return nil, err
	}
	if err := st.canonicalRequest(req); err != nil {
		return nil, err
	}
	st.stringToSign()
	var signature [sha256.Size]byte
	if len(st.signature) != 2*sha256.Size {
		return nil, mismatch(st)
	}
	if _, err := hex.Decode(signature[:], []byte(st.signature)); err != nil {
		return nil, mismatch(st)
	}
	key, cached := v.signingKey(st, cred.SecretAccessKey)
	mac := key.macs.Get().(hash.Hash)
	mac.Reset()
	mac.Write(st.toSign)
	ours := mac.Sum(st.sum[:0])
	key.macs.Put(mac)
	if subtle.ConstantTimeCompare(ours, signature[:]) != 1 {
		return nil, mismatch(st)
	}
	if !cached { // only now: who can't sign can't fill the cache
		v.keep(st, key)
	}
	return cred.Identity, nil
}

func (v *Verifier) state(req api.Request) *sigState {
	st := v.states.Get().(*sigState)
	st.headers = st.headers[:0]
	st.params = st.params[:0]
	req.VisitHeaders(st.visit)
	return st
}

// release drops what aliases the request.
func (v *Verifier) release(st *sigState) {
	clear(st.headers)
	clear(st.params)
	st.claim = claim{}
	v.states.Put(st)
}

// mismatch is the error that tells a client's author what we signed.
func mismatch(st *sigState) *Error {
	return InvalidSignature.New("%s\n\nThe Canonical String for this request should have been\n'%s'\n\nThe String-to-Sign should have been\n'%s'\n",
		InvalidSignature.Text, st.canonical, st.toSign)
}

// parse checks everything that does not need the body, in the front end's order.
func (v *Verifier) parse(st *sigState, req api.Request, service string) (Credential, *Error) {
	auth, query := req.Header("Authorization"), req.RawQuery()
	inQuery := bytes.Contains(query, []byte("X-Amz-Algorithm="))
	var err *Error
	switch {
	case len(auth) > 0 && inQuery:
		err = InvalidSignature.New("Found both 'X-Amz-Algorithm' as a query-string param and 'Authorization' as HTTP header.")
	case len(auth) > 0:
		err = st.fromHeader(req, auth)
	case inQuery:
		err = st.fromQuery(query)
	default:
		err = MissingAuthenticationToken.Default()
	}
	if err == nil {
		err = v.checkTime(st)
	}
	if err == nil {
		err = st.checkSignedHeaders(req)
	}
	if err == nil && st.algorithm != "AWS4-HMAC-SHA256" { // the words are AWS's, as kinesalite recorded them
		err = IncompleteSignature.New("Unsupported AWS 'algorithm': '%s' (only AWS4-HMAC-SHA256 for now). ", st.algorithm)
	}
	if err == nil {
		err = v.checkScope(st, service)
	}
	if err != nil {
		return Credential{}, err
	}
	cred, known := v.o.Keyring.Lookup(st.accessKeyID)
	if !known || subtle.ConstantTimeCompare(st.token, []byte(cred.SessionToken)) != 1 {
		return Credential{}, UnrecognizedClient.Default()
	}
	return cred, nil
}

func (st *sigState) fromHeader(req api.Request, auth []byte) *Error {
	rest := view(auth)
	st.algorithm, rest, _ = strings.Cut(rest, " ")
	for rest != "" {
		var part string
		part, rest = cutAny(rest)
		name, value, _ := strings.Cut(part, "=")
		switch name {
		case "Credential":
			st.credential = value
		case "SignedHeaders":
			st.signedHeaders = value
		case "Signature":
			st.signature = value
		}
	}
	date := req.Header("X-Amz-Date")
	if len(date) == 0 {
		date = req.Header("Date")
	}
	st.dateText = view(date)
	st.token = req.Header("X-Amz-Security-Token")
	st.payload = req.Header("X-Amz-Content-Sha256")
	missing := ""
	for _, p := range [...]struct{ name, value string }{{"Credential", st.credential}, {"Signature", st.signature}, {"SignedHeaders", st.signedHeaders}} {
		if p.value == "" {
			missing += "Authorization header requires '" + p.name + "' parameter. "
		}
	}
	if st.dateText == "" {
		missing += "Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header. "
	}
	if missing != "" {
		return IncompleteSignature.New("%sAuthorization=%s", missing, auth)
	}
	return nil
}

// cutAny cuts s at the first comma or space.
func cutAny(s string) (before, after string) {
	if i := strings.IndexAny(s, ", "); i >= 0 {
		return s[:i], s[i+1:]
	}
	return s, ""
}

func (st *sigState) fromQuery(query []byte) *Error {
	st.inQuery = true
	st.splitQuery(query)
	var expires string
	for _, p := range st.params {
		value := view(p.value)
		switch view(p.name) {
		case "X-Amz-Algorithm":
			st.algorithm = value
		case "X-Amz-Credential":
			st.credential = value
		case "X-Amz-SignedHeaders":
			st.signedHeaders = value
		case "X-Amz-Signature":
			st.signature = value
		case "X-Amz-Date":
			st.dateText = value
		case "X-Amz-Expires":
			expires = value
		case "X-Amz-Security-Token":
			st.token = p.value
		case "X-Amz-Content-Sha256":
			st.payload = p.value
		}
	}
	missing := ""
	for _, p := range [...]struct{ name, value string }{
		{"Algorithm", st.algorithm},
		{"Credential", st.credential},
		{"Signature", st.signature},
		{"SignedHeaders", st.signedHeaders},
		{"Date", st.dateText},
	} {
		if p.value == "" {
			missing += "AWS query-string parameters must include 'X-Amz-" + p.name + "'. "
		}
	}
	if missing != "" {
		return IncompleteSignature.New("%sRe-examine the query-string parameters.", missing)
	}
	if expires != "" {
		seconds, err := strconv.ParseUint(expires, 10, 32)
		if err != nil || seconds == 0 || time.Duration(seconds)*time.Second > maxPresigned {
			return IncompleteSignature.New("X-Amz-Expires must be a number of seconds from 1 to %d. Got '%s'", int(maxPresigned.Seconds()), expires)
		}
		st.expires = time.Duration(seconds) * time.Second
	}
	return nil
}

// splitQuery decodes the query's parameters. It allocates where there are escapes.
func (st *sigState) splitQuery(query []byte) {
	for len(query) > 0 {
		var part []byte
		part, query, _ = bytes.Cut(query, []byte("&"))
		if len(part) == 0 {
			continue
		}
		name, value, _ := bytes.Cut(part, []byte("="))
		st.params = append(st.params, queryParam{unescape(name), unescape(value)})
	}
}

// unescape undoes percent escapes; '+' stands for itself, as SigV4 has it. What
// is no escape is left as it is.
func unescape(s []byte) []byte {
	if bytes.IndexByte(s, '%') < 0 {
		return s
	}
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) {
			var b [1]byte
			if _, err := hex.Decode(b[:], s[i+1:i+3]); err == nil {
				out = append(out, b[0])
				i += 2
				continue
			}
		}
		out = append(out, s[i])
	}
	return out
}

const isoBasic = "20060102T150405Z"

func (v *Verifier) checkTime(st *sigState) *Error {
	var ok bool
	if st.when, ok = parseTime(st.dateText); !ok {
		return IncompleteSignature.New("Date must be in ISO-8601 'basic format'. Got '%s'. See http://en.wikipedia.org/wiki/ISO_8601", st.dateText)
	}
	if v.o.ClockTolerance < 0 {
		return nil
	}
	now := v.o.Clock().UTC()
	earliest, latest := now.Add(-v.o.ClockTolerance), now.Add(v.o.ClockTolerance)
	switch expiry := st.when.Add(st.expires); {
	case st.expires > 0 && expiry.Before(now):
		return InvalidSignature.New("Signature expired: %s is now earlier than %s", expiry.Format(isoBasic), now.Format(isoBasic))
	case st.expires == 0 && expiry.Before(earliest):
		return InvalidSignature.New("Signature expired: %s is now earlier than %s (%s - %s)",
			expiry.Format(isoBasic), earliest.Format(isoBasic), now.Format(isoBasic), minutes(v.o.ClockTolerance))
	case st.when.After(latest):
		return InvalidSignature.New("Signature not yet current: %s is still later than %s (%s + %s)",
			st.when.Format(isoBasic), latest.Format(isoBasic), now.Format(isoBasic), minutes(v.o.ClockTolerance))
	}
	return nil
}

func minutes(d time.Duration) string {
	if d%time.Minute != 0 {
		return d.String()
	}
	return fmt.Sprintf("%d min.", d/time.Minute)
}

// parseTime reads 20060102T150405Z without allocating, and the forms of a Date header.
func parseTime(s string) (time.Time, bool) {
	if len(s) != len(isoBasic) || s[8] != 'T' || s[15] != 'Z' {
		for _, layout := range [...]string{time.RFC1123, time.RFC1123Z} {
			if t, err := time.Parse(layout, s); err == nil {
				return t.UTC(), true
			}
		}
		return time.Time{}, false
	}
	num := func(from, to int) int {
		n := 0
		for _, c := range []byte(s[from:to]) {
			if c-'0' > 9 {
				return -1
			}
			n = n*10 + int(c-'0')
		}
		return n
	}
	y, mo, d, h, mi, sec := num(0, 4), num(4, 6), num(6, 8), num(9, 11), num(11, 13), num(13, 15)
	if y < 0 || mo < 1 || mo > 12 || d < 1 || d > 31 || h < 0 || h > 23 || mi < 0 || mi > 59 || sec < 0 || sec > 60 {
		return time.Time{}, false
	}
	return time.Date(y, time.Month(mo), d, h, mi, sec, 0, time.UTC), true
}

// checkSignedHeaders wants those headers covered that decide where the request
// goes and what it does.
func (st *sigState) checkSignedHeaders(req api.Request) *Error {
	var host, target bool
	for names := st.signedHeaders; names != ""; {
		var name string
		name, names, _ = strings.Cut(names, ";")
		host = host || strings.EqualFold(name, "host") || name == ":authority"
		target = target || strings.EqualFold(name, "x-amz-target")
	}
	if !host {
		return InvalidSignature.New("'Host' or ':authority' must be a 'SignedHeader' in the AWS Authorization.")
	}
	if !target && len(req.Header("X-Amz-Target")) > 0 {
		return InvalidSignature.New("'X-Amz-Target' must be a 'SignedHeader' in the AWS Authorization.")
	}
	return nil
}

func (v *Verifier) checkScope(st *sigState, service string) *Error {
	parts := [5]string{}
	n := 0
	for rest, more := st.credential, true; more && n <= len(parts); n++ {
		var part string
		part, rest, more = strings.Cut(rest, "/")
		if n < len(parts) {
			parts[n] = part
		}
	}
	if n != len(parts) {
		return IncompleteSignature.New("Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/term, got '%s'", st.credential)
	}
	st.accessKeyID, st.date, st.region, st.service = parts[0], parts[1], parts[2], parts[3]
	wrong := ""
	if st.region == "" || len(v.o.Regions) > 0 && !slices.Contains(v.o.Regions, st.region) {
		wrong += fmt.Sprintf("Credential should be scoped to a valid region, not '%s'. ", st.region)
	}
	if service != "" && st.service != service {
		wrong += fmt.Sprintf("Credential should be scoped to correct service: '%s'. ", service)
	}
	if parts[4] != "aws4_request" {
		wrong += fmt.Sprintf("Credential should be scoped with a valid terminator: 'aws4_request', not '%s'. ", parts[4])
	}
	var day [8]byte
	if want := st.when.AppendFormat(day[:0], "20060102"); string(want) != st.date {
		wrong += fmt.Sprintf("Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: '%s' != '%s', from '%s'. ",
			st.date, string(want), st.dateText)
	}
	if wrong != "" {
		return InvalidSignature.New("%s", wrong)
	}
	return nil
}

const unsignedPayload = "UNSIGNED-PAYLOAD"

// payloadHash puts into st.payload what the canonical request ends with.
func (v *Verifier) payloadHash(st *sigState, req api.Request) *Error {
	claimed := view(st.payload)
	if claimed == unsignedPayload {
		if req.TLS() == nil && !v.o.AllowUnsignedPayload {
			return InvalidSignature.New("%s is accepted over TLS only.", unsignedPayload)
		}
		return nil
	}
	if strings.HasPrefix(claimed, "STREAMING-") {
		return InvalidSignature.New("Payloads signed in chunks ('%s') are not supported by this service.", claimed)
	}
	sum := sha256.Sum256(req.Body())
	var ours [2 * sha256.Size]byte
	hex.Encode(ours[:], sum[:])
	if claimed != "" && subtle.ConstantTimeCompare(ours[:], st.payload) != 1 {
		return InvalidSignature.New("The provided 'x-amz-content-sha256' header does not match what was computed.")
	}
	st.payload = append(st.canonical[:0], ours[:]...) // lives in canonical until that is built below
	return nil
}

// canonicalRequest builds what the client hashed into st.canonical.
func (st *sigState) canonicalRequest(req api.Request) *Error {
	var payload [2 * sha256.Size]byte
	if len(st.payload) > len(payload) {
		return InvalidSignature.Default()
	}
	n := copy(payload[:], st.payload)
	b := append(st.canonical[:0], req.Method()...)
	b = append(b, '\n')
	b = appendPath(b, req.Path())
	b = append(b, '\n')
	b = st.appendQuery(b, req.RawQuery())
	b = append(b, '\n')
	for names, more := st.signedHeaders, true; more; {
		var name string
		name, names, more = strings.Cut(names, ";")
		b = append(b, name...)
		b = append(b, ':')
		b = st.appendHeader(b, req, name)
		b = append(b, '\n')
	}
	b = append(b, '\n')
	b = append(b, st.signedHeaders...)
	b = append(b, '\n')
	st.canonical = append(b, payload[:n]...)
	return nil
}

// appendHeader appends the values of a header, joined by commas.
func (st *sigState) appendHeader(b []byte, req api.Request, name string) []byte {
	switch name {
	case "host", ":authority":
		return appendTrimmed(b, req.Host())
	case "content-length":
		return appendTrimmed(b, req.Header("Content-Length"))
	}
	first := true
	for i := range st.headers {
		if h := &st.headers[i]; len(h.name) == len(name) && strings.EqualFold(view(h.name), name) {
			if !first {
				b = append(b, ',')
			}
			first = false
			b = appendTrimmed(b, h.value)
		}
	}
	return b
}

// appendTrimmed appends a value without space around it and with runs of it made one.
func appendTrimmed(b, value []byte) []byte {
	value = bytes.Trim(value, " \t")
	space := false
	for _, c := range value {
		if c == ' ' {
			if space {
				continue
			}
			space = true
		} else {
			space = false
		}
		b = append(b, c)
	}
	return b
}

// appendPath appends the path encoded once more, as every service but S3 has it.
func appendPath(b, path []byte) []byte {
	if len(path) == 0 {
		return append(b, '/')
	}
	for _, c := range path {
		if c == '/' {
			b = append(b, c)
		} else {
			b = appendEscaped(b, c)
		}
	}
	return b
}

const upperHex = "0123456789ABCDEF"

func appendEscaped(b []byte, c byte) []byte {
	if 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_' || c == '.' || c == '~' {
		return append(b, c)
	}
	return append(b, '%', upperHex[c>>4], upperHex[c&15])
}

// appendQuery appends the parameters in order, without the signature.
func (st *sigState) appendQuery(b, query []byte) []byte {
	if len(query) == 0 {
		return b
	}
	if !st.inQuery {
		st.splitQuery(query)
	}
	pairs := make([]string, 0, len(st.params))
	for _, p := range st.params {
		if st.inQuery && string(p.name) == "X-Amz-Signature" {
			continue
		}
		var pair []byte
		for _, c := range p.name {
			pair = appendEscaped(pair, c)
		}
		pair = append(pair, '=')
		for _, c := range p.value {
			pair = appendEscaped(pair, c)
		}
		pairs = append(pairs, string(pair))
	}
	// By name, then by value: '=' has to sort before everything a name may have.
	slices.SortFunc(pairs, func(a, b string) int {
		an, av, _ := strings.Cut(a, "=")
		bn, bv, _ := strings.Cut(b, "=")
		if c := strings.Compare(an, bn); c != 0 {
			return c
		}
		return strings.Compare(av, bv)
	})
	return append(b, strings.Join(pairs, "&")...)
}

func (st *sigState) stringToSign() {
	st.sum = sha256.Sum256(st.canonical)
	b := append(st.toSign[:0], "AWS4-HMAC-SHA256\n"...)
	b = st.when.AppendFormat(b, isoBasic)
	b = append(b, '\n')
	_, scope, _ := strings.Cut(st.credential, "/")
	b = append(b, scope...)
	b = append(b, '\n')
	st.toSign = hex.AppendEncode(b, st.sum[:])
}

// signingKey returns the derived key, from the cache or new.
func (v *Verifier) signingKey(st *sigState, secret string) (key *signingKey, cached bool) {
	v.mu.RLock()
	key = v.signing[signingScope{st.accessKeyID, st.date, st.region, st.service}]
	v.mu.RUnlock()
	if key != nil && key.secret == secret {
		return key, true
	}
	k := []byte("AWS4" + secret)
	for _, part := range [...]string{st.date, st.region, st.service, "aws4_request"} {
		mac := hmac.New(sha256.New, k)
		mac.Write([]byte(part))
		k = mac.Sum(nil)
	}
	key = &signingKey{secret: secret}
	key.macs.New = func() any { return hmac.New(sha256.New, k) }
	return key, false
}

func (v *Verifier) keep(st *sigState, key *signingKey) {
	scope := signingScope{
		strings.Clone(st.accessKeyID), strings.Clone(st.date), strings.Clone(st.region), strings.Clone(st.service),
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.signing) >= maxSigningKeys {
		clear(v.signing)
	}
	v.signing[scope] = key
}
