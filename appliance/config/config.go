package config

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/weirhq/weir/appliance/dn"
)

// Config is the whole configuration. Default fills it so that it runs.
type Config struct {
	// Dir is the data directory. It is named on the command line (--dir), not
	// in the file: the commands for a stopped box need it without a file.
	Dir string `yaml:"-"`

	Listen    Listen    `yaml:"listen"`
	Auth      Auth      `yaml:"auth"`
	Kinesis   Kinesis   `yaml:"kinesis"`
	Faults    Faults    `yaml:"faults"`
	Storage   Storage   `yaml:"storage"`
	Streams   []Stream  `yaml:"streams" live:"true"`
	Wasm      Wasm      `yaml:"wasm"`
	Sinks     []Sink    `yaml:"sinks"`
	Delivery  Delivery  `yaml:"delivery"`
	Telemetry Telemetry `yaml:"telemetry"`
	Shutdown  Shutdown  `yaml:"shutdown"`
}

// Listen is the one port.
type Listen struct {
	Address        string        `yaml:"address" doc:"host:port of the one port; an empty host listens on every address"`
	Names          []string      `yaml:"names" doc:"more host names and addresses for the certificate of the first start"`
	TLSCert        string        `yaml:"tls_cert" live:"true" doc:"PEM file with a certificate chain of your own; empty uses the one made at first start"`
	TLSKey         string        `yaml:"tls_key" live:"true" doc:"PEM file with the key of tls_cert"`
	ClientCA       string        `yaml:"client_ca" live:"true" doc:"PEM file with the authorities whose client certificates are accepted as identities; empty asks for none"`
	Cleartext      string        `yaml:"cleartext" oneof:"loopback,always,never" doc:"who may connect without TLS"`
	MaxConnections int           `yaml:"max_connections" min:"1" max:"1000000" doc:"open connections; one more is turned away"`
	PerAddress     int           `yaml:"max_connections_per_address" min:"1" max:"1000000" doc:"open connections of one IPv4 address or IPv6 /64 network, which a proxy or a router may be for many clients; loopback may have seven eighths of max_connections"`
	MaxRequests    int           `yaml:"max_requests" min:"1" max:"100000" doc:"requests in flight, of which one address may have half and loopback seven eighths; more are answered with 503"`
	MaxHeaderBytes Bytes         `yaml:"max_header_bytes" min:"4KiB" max:"1MiB" doc:"size of a request's line and headers; larger ones are answered with 431"`
	MaxBodyBytes   Bytes         `yaml:"max_body_bytes" min:"1MiB" max:"256MiB" doc:"size of one request body; a larger one is answered with 413"`
	BodyMemory     Bytes         `yaml:"body_memory" min:"1MiB" max:"1GiB" doc:"memory of all request bodies in flight; a request waits for its share, and is then answered with 503. Bodies above 64 KiB leave an eighth of it to smaller ones, those above 1 MiB a quarter, and one address a sixteenth to others"`
	AnswerMemory   Bytes         `yaml:"answer_memory" min:"16MiB" max:"1GiB" doc:"memory of all answers with records in flight; when it is short an answer has fewer records, or a request for one waits and is then throttled. One address leaves a sixteenth to others"`
	HeaderTimeout  time.Duration `yaml:"header_timeout" min:"1s" max:"10m" doc:"time a client has to send its request line and headers, and over HTTP/1.1 a body of up to 8 KiB"`
	BodyTimeout    time.Duration `yaml:"body_timeout" min:"1s" max:"1h" doc:"time a client has to send its request body"`
	IdleTimeout    time.Duration `yaml:"idle_timeout" min:"1s" max:"24h" doc:"time a connection may be idle between requests"`
	MinRate        Bytes         `yaml:"min_rate" min:"1B" max:"1GiB" doc:"bytes per second that a client sends or takes at least; a slower one is cut off"`
}

// Auth is who may do what.
type Auth struct {
	Anonymous      string        `yaml:"anonymous" oneof:"never,loopback,always" doc:"who may do everything without proof of identity; health checks need none"`
	ClockTolerance time.Duration `yaml:"clock_tolerance" min:"1s" max:"8760h" doc:"how far a signature's time may be from this box's clock"`
	Keys           []Key         `yaml:"keys" live:"true" doc:"access keys besides the one made at first start"`
	Tokens         []Token       `yaml:"tokens" live:"true" doc:"bearer tokens, for devices without an AWS client"`
	Certificates   []Certificate `yaml:"certificates" live:"true" doc:"owners of client certificates; listen.client_ca says who may sign them"`
}

// Grant is what someone may do.
type Grant struct {
	Actions []string `yaml:"actions" live:"true" doc:"actions allowed, * matches any characters: kinesis:PutRecords, kinesis:Get*, admin:*"`
	Streams []string `yaml:"streams" live:"true" doc:"stream names the actions are allowed on, * matches any characters"`
}

func (g *Grant) setDefaults() { *g = Grant{[]string{"*"}, []string{"*"}} }

// Key is one access key with what it may do.
type Key struct {
	Name            string `yaml:"name" live:"true" doc:"name shown in logs"`
	AccessKeyID     string `yaml:"access_key_id" live:"true" doc:"16 to 128 letters and digits"`
	SecretAccessKey Secret `yaml:"secret_access_key" live:"true" doc:"at least 16 characters; ${file:/path} and ${env:NAME} are read from there"`
	Grant           `yaml:",inline"`
}

// Token is one bearer token with what it may do.
type Token struct {
	Name  string `yaml:"name" live:"true" doc:"name shown in logs"`
	Token Secret `yaml:"token" live:"true" doc:"at least 16 characters; ${file:/path} and ${env:NAME} are read from there"`
	Grant `yaml:",inline"`
}

// Certificate is the owner of client certificates with what it may do. One field
// says which certificates: those that carry its value.
type Certificate struct {
	Name       string `yaml:"name" live:"true" doc:"name shown in logs, and the identity of the device; by default what the certificate is known by"`
	Subject    string `yaml:"subject" live:"true" doc:"whole subject as in RFC 4514, such as CN=device-17,OU=Sensors,O=Acme,C=DE; openssl x509 -noout -subject -nameopt RFC2253 prints it"`
	CommonName string `yaml:"common_name" live:"true" doc:"common name of the subject, whatever else is in it"`
	URI        string `yaml:"uri" live:"true" doc:"URI among the subject's alternative names, such as spiffe://plant/device-17"`
	DNS        string `yaml:"dns" live:"true" doc:"DNS name among the subject's alternative names"`
	Email      string `yaml:"email" live:"true" doc:"e-mail address among the subject's alternative names"`
	Grant      `yaml:",inline"`
}

// Mark returns the one thing that the certificates are known by: the name of its
// field and its value, a subject in the form of package dn. It fails unless exactly
// one is given.
func (c *Certificate) Mark() (field, value string, err error) {
	for _, f := range [...][2]string{{"subject", c.Subject}, {"common_name", c.CommonName}, {"uri", c.URI}, {"dns", c.DNS}, {"email", c.Email}} {
		switch {
		case f[1] == "":
		case field != "":
			return "", "", fmt.Errorf("%s and %s; expecting one of subject, common_name, uri, dns and email", field, f[0])
		default:
			field, value = f[0], f[1]
		}
	}
	switch field {
	case "":
		return "", "", errors.New("empty; expecting one of subject, common_name, uri, dns and email")
	case "subject":
		name, err := dn.Parse(value)
		if err != nil {
			return "", "", fmt.Errorf("subject: %w", err)
		}
		return field, string(name), nil
	case "dns":
		return field, strings.ToLower(value), nil
	}
	return field, value, nil
}

// Kinesis is how the Kinesis service answers.
type Kinesis struct {
	Account string `yaml:"account" doc:"12-digit account of the ARNs"`
	Region  string `yaml:"region" doc:"region of the ARNs; requests may name any"`
	Quotas  bool   `yaml:"quotas" doc:"enforce the per-shard quotas of AWS: 1,000 records and 1 MiB a second in, 5 reads and 2 MiB a second out"`
}

// Faults is what goes wrong on purpose, for the tests of programs that use the box.
type Faults struct {
	Throttle        float64       `yaml:"throttle_percent" min:"0" max:"100" doc:"percentage of calls answered with the service's throttling error"`
	Fail            float64       `yaml:"fail_percent" min:"0" max:"100" doc:"percentage of calls answered with InternalFailure"`
	ExpireIterators float64       `yaml:"expire_iterators_percent" min:"0" max:"100" doc:"percentage of GetRecords calls answered with ExpiredIteratorException"`
	Delay           float64       `yaml:"delay_percent" min:"0" max:"100" doc:"percentage of calls held back, by up to delay"`
	DelayBy         time.Duration `yaml:"delay" min:"0s" max:"1m" doc:"longest time a call is held back"`
	Operations      []string      `yaml:"operations" doc:"operations that the faults are for, such as PutRecords; empty is all"`
}

// Storage is the shard log.
type Storage struct {
	MemTableBytes  Bytes `yaml:"mem_table_bytes" min:"1MiB" max:"256MiB" doc:"memory of one memtable, which is the size of a table on disk; two to four are in memory"`
	CacheBytes     Bytes `yaml:"cache_bytes" min:"1MiB" max:"64GiB" doc:"memory of the block cache"`
	AdmissionBytes Bytes `yaml:"admission_bytes" min:"1MiB" max:"1GiB" doc:"record bytes in flight to the log; more writers wait their turn"`
	TotalBytes     Bytes `yaml:"total_bytes" doc:"bytes stored of all streams together, past which the streams' when_full decides, looked at every second; 0 is bounded by the disk alone"`
	EnduranceBytes Bytes `yaml:"endurance_bytes" doc:"what the flash may be written in its life (its TBW), for the forecast of wear; 0 when not known"`
}

// Stream is a stream that is made at start when it is missing. One that is there is
// changed to what the file sets, but for the number of its shards.
type Stream struct {
	Name           string        `yaml:"name" live:"true" doc:"made when there is none of the name: 1 to 128 of a-z A-Z 0-9 _ . -"`
	Shards         int           `yaml:"shards" min:"1" max:"10000" doc:"shards to begin with, an on-demand stream with 4 unless set; weir stream reshard changes them"`
	Mode           string        `yaml:"mode" live:"true" oneof:"provisioned,on-demand" doc:"on-demand splits and merges by itself, down to 4 shards"`
	Retention      time.Duration `yaml:"retention" live:"true" min:"1h" max:"8760h" doc:"how long a record is kept"`
	RetentionBytes Bytes         `yaml:"retention_bytes" live:"true" doc:"bytes stored of this stream; 0 sets no bound"`
	WhenFull       string        `yaml:"when_full" live:"true" oneof:"reject,drop-oldest,thin-out" doc:"what gives when space runs out"`
	Codec          string        `yaml:"codec" live:"true" oneof:"zstd,s2,none,auto" doc:"how blocks are compressed"`
	MaxRecordBytes Bytes         `yaml:"max_record_bytes" live:"true" min:"1MiB" max:"10MiB" doc:"largest record"`
}

// OnDemandShards is how many shards an on-demand stream begins with, unless a number is
// given, however it is made.
const OnDemandShards = 4

func (s *Stream) setDefaults() {
	*s = Stream{Shards: 1, Mode: "provisioned", Retention: 24 * time.Hour, WhenFull: "reject", Codec: "zstd", MaxRecordBytes: 1 << 20}
}

// Wasm is the limits of modules.
type Wasm struct {
	Memory      Bytes    `yaml:"memory" min:"1MiB" max:"2GiB" doc:"linear memory of all instances together"`
	Signatures  string   `yaml:"signatures" oneof:"off,warn,require" doc:"what happens to a module without a signature by a trusted key"`
	TrustedKeys []string `yaml:"trusted_keys" doc:"files with Ed25519 public keys whose signatures count"`

	CompileCommand []string `yaml:"compile_command" doc:"what starts the child process that compiles modules; this program if empty. Under an emulator: the emulator and this program"`

	AllowedHosts []string       `yaml:"allowed_hosts" doc:"host:port that modules may call when their manifest names them too; none if empty, any with *"`
	Secrets      []ModuleSecret `yaml:"secrets" doc:"secrets that the box puts into the requests of modules that are granted them"`
}

// ModuleSecret is a secret that a module can use and never sees.
type ModuleSecret struct {
	Name  string `yaml:"name" doc:"name in manifests"`
	Value Secret `yaml:"value" doc:"the secret; ${file:/path} and ${env:NAME} are read from there"`
}

// Sink is where delivery streams may send objects or records.
type Sink struct {
	Name     string   `yaml:"name" doc:"name that delivery streams use"`
	Kind     string   `yaml:"kind" oneof:"file,s3,http,kinesis" doc:"what kind of sink it is"`
	Default  bool     `yaml:"default" doc:"the object store for buckets that no other sink has"`
	Settings Settings `yaml:"settings" doc:"keys and values that its kind has, such as bucket and access_key_id of s3; README says where they stand, weir check tries them; ${file:/path} and ${env:NAME} are read from there"`
}

// Delivery is the limits of all delivery streams together.
type Delivery struct {
	Memory         Bytes `yaml:"memory" min:"4MiB" max:"2GiB" doc:"memory of all objects in the making"`
	BytesPerSecond Bytes `yaml:"bytes_per_second" doc:"cap on the bytes sent per second by all metered sinks; 0 sets none"`
}

// Telemetry is what the box tells about itself.
type Telemetry struct {
	LogLevel  string `yaml:"log_level" oneof:"debug,info,warn,error" live:"true" doc:"least level that is logged"`
	LogFormat string `yaml:"log_format" oneof:"text,json" doc:"form of a log line"`
	PProf     bool   `yaml:"pprof" doc:"serve /debug/pprof/ to loopback clients"`
}

// Shutdown is how the box stops.
type Shutdown struct {
	Drain time.Duration `yaml:"drain" min:"1s" max:"10m" doc:"longest time after SIGTERM for requests in flight to be answered and deliveries to send what they have gathered; what is left is taken up at the next start"`
}

// Default is the configuration without a file. It is valid and runs.
func Default() *Config {
	return &Config{
		Dir: "weir-data",
		Listen: Listen{
			Address:        ":4567",
			Cleartext:      "loopback",
			MaxConnections: 4096,
			PerAddress:     1024,
			MaxRequests:    1024,
			MaxHeaderBytes: 16 << 10,
			MaxBodyBytes:   16 << 20,
			BodyMemory:     32 << 20,
			AnswerMemory:   32 << 20,
			HeaderTimeout:  10 * time.Second,
			BodyTimeout:    time.Minute,
			IdleTimeout:    5 * time.Minute,
			MinRate:        4 << 10,
		},
		Auth:      Auth{Anonymous: "never", ClockTolerance: 15 * time.Minute},
		Kinesis:   Kinesis{Account: "000000000000", Region: "us-east-1"},
		Storage:   Storage{MemTableBytes: 8 << 20, CacheBytes: 8 << 20, AdmissionBytes: 4 << 20},
		Wasm:      Wasm{Memory: 64 << 20, Signatures: "warn"},
		Delivery:  Delivery{Memory: 32 << 20},
		Telemetry: Telemetry{LogLevel: "info", LogFormat: "text"},
		Shutdown:  Shutdown{Drain: 20 * time.Second},
	}
}

// DefaultStream is a stream of the configuration without any key but its name.
func DefaultStream() Stream {
	var s Stream
	s.setDefaults()
	return s
}
