package api

// Identity is who sent a request, as established by the listener's gate.
// It is immutable and shared by the requests of one key, token or certificate.
type Identity struct {
	// Name is what logs and metrics call this identity; never a secret.
	Name string
	// AccessKeyID is the AWS access key of a signed request, otherwise empty.
	AccessKeyID string
	// Means tells how the identity was established.
	Means Means
	// Policy is what the identity may do. The zero Policy allows nothing.
	Policy Policy
}

// Means is a way to establish an identity.
type Means uint8

// The ways an identity is established.
const (
	MeansSigV4       Means = iota + 1 // AWS Signature Version 4, header or query
	MeansBearer                       // Authorization: Bearer
	MeansBasic                        // Authorization: Basic
	MeansCertificate                  // TLS client certificate
	MeansOpen                         // no proof asked for, by configuration
)

// String returns the name used in logs and metrics.
func (m Means) String() string {
	switch m {
	case MeansSigV4:
		return "sigv4"
	case MeansBearer:
		return "bearer"
	case MeansBasic:
		return "basic"
	case MeansCertificate:
		return "certificate"
	case MeansOpen:
		return "open"
	}
	return "none"
}

// Allows tells whether the identity may do action ("kinesis:PutRecords",
// "firehose:PutRecordBatch", "plain:Put", "admin:…") on the named stream or
// delivery stream. An action that is about no single stream has stream "", which
// only the stream pattern "*" covers. A nil Identity may do nothing. Allows does
// not allocate.
func (id *Identity) Allows(action, stream string) bool {
	return id != nil && id.Policy.Allows(action, stream)
}

// Policy is a list of grants; what no grant covers is denied.
type Policy []Grant

// Grant allows each of Actions on each of Streams. Entries are patterns in which
// '*' stands for any run of characters and '?' for any one. Actions are compared
// without regard to ASCII case, streams exactly.
type Grant struct {
	Actions []string
	Streams []string
}

// FullAccess allows everything.
var FullAccess = Policy{{Actions: []string{"*"}, Streams: []string{"*"}}}

// Allows tells whether some grant covers action on stream.
func (p Policy) Allows(action, stream string) bool {
	for i := range p {
		if anyMatches(p[i].Actions, action, true) && anyMatches(p[i].Streams, stream, false) {
			return true
		}
	}
	return false
}

func anyMatches(patterns []string, s string, fold bool) bool {
	for _, p := range patterns {
		if matches(p, s, fold) {
			return true
		}
	}
	return false
}

// matches is glob matching with one point to fall back to: the last star seen.
// It is linear in len(s) times the number of stars at worst and needs no memory.
func matches(p, s string, fold bool) bool {
	pi, si, star, mark := 0, 0, -1, 0
	for si < len(s) {
		switch {
		case pi < len(p) && p[pi] == '*':
			star, mark = pi, si
			pi++
		case pi < len(p) && (p[pi] == '?' || p[pi] == s[si] || fold && lower(p[pi]) == lower(s[si])):
			pi++
			si++
		case star >= 0:
			mark++
			pi, si = star+1, mark
		default:
			return false
		}
	}
	for pi < len(p) && p[pi] == '*' {
		pi++
	}
	return pi == len(p)
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}
