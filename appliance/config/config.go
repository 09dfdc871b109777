package config

import (
	"time"
)

// Config is the whole configuration. Default fills it so that it runs.
type Config struct {
	// Dir is the data directory. It is named on the command line (--dir), not
	// in the file: the commands for a stopped box need it without a file.
	Dir string `yaml:"-"`

	Listen    Listen    `yaml:"listen"`
	Auth      Auth      `yaml:"auth"`
	Storage   Storage   `yaml:"storage"`
	Streams   []Stream  `yaml:"streams"`
	Wasm      Wasm      `yaml:"wasm"`
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
	ClientCA       string        `yaml:"client_ca" doc:"PEM file with the authorities whose client certificates are accepted as identities; empty asks for none"`
	Cleartext      string        `yaml:"cleartext" oneof:"loopback,always,never" doc:"who may connect without TLS"`
	MaxConnections int           `yaml:"max_connections" min:"1" max:"1000000" doc:"open connections; one more is closed at once"`
	MaxBodyBytes   Bytes         `yaml:"max_body_bytes" min:"1MiB" max:"256MiB" doc:"size of one request body; a larger one is answered with 413"`
	BodyMemory     Bytes         `yaml:"body_memory" min:"1MiB" max:"16GiB" doc:"memory of all request bodies in flight; past it requests are answered with 503 and a retry hint"`
	HeaderTimeout  time.Duration `yaml:"header_timeout" min:"1s" max:"10m" doc:"time a client has to send its request line and headers"`
	BodyTimeout    time.Duration `yaml:"body_timeout" min:"1s" max:"1h" doc:"time a client has to send its request body"`
	IdleTimeout    time.Duration `yaml:"idle_timeout" min:"1s" max:"24h" doc:"time a connection may be idle between requests"`
}

// Auth is who may do what.
type Auth struct {
	Anonymous      string        `yaml:"anonymous" oneof:"never,loopback,always" doc:"who may call without a signature; health checks always may"`
	ClockTolerance time.Duration `yaml:"clock_tolerance" min:"1s" max:"8760h" doc:"how far a signature's time may be from this box's clock"`
	Keys           []Key         `yaml:"keys" live:"true" doc:"access keys besides the one made at first start"`
}

// Key is one access key with what it may do.
type Key struct {
	Name            string   `yaml:"name" live:"true" doc:"name shown in logs"`
	AccessKeyID     string   `yaml:"access_key_id" live:"true" doc:"16 to 128 letters and digits"`
	SecretAccessKey Secret   `yaml:"secret_access_key" live:"true" doc:"at least 16 characters"`
	Actions         []string `yaml:"actions" live:"true" doc:"actions allowed, * matches any characters: kinesis:PutRecords, kinesis:Get*, admin:*"`
	Streams         []string `yaml:"streams" live:"true" doc:"stream names the actions are allowed on, * matches any characters"`
}

func (k *Key) setDefaults() {
	k.Actions, k.Streams = []string{"*"}, []string{"*"}
}

// Storage is the shard log.
type Storage struct {
	MemTableBytes  Bytes `yaml:"mem_table_bytes" min:"1MiB" max:"1GiB" doc:"memory of one memtable; a flush writes one table of this size"`
	CacheBytes     Bytes `yaml:"cache_bytes" min:"1MiB" max:"64GiB" doc:"memory of the block cache"`
	AdmissionBytes Bytes `yaml:"admission_bytes" min:"1MiB" max:"4GiB" doc:"record bytes in flight to the log; more writers wait their turn"`
	RetentionBytes Bytes `yaml:"retention_bytes" doc:"bytes stored of all streams together; 0 is bounded by the disk alone"`
}

// Stream is a stream that is made at start when it is missing. A stream that
// is there already is left as it is.
type Stream struct {
	Name           string        `yaml:"name" doc:"1 to 128 of a-z A-Z 0-9 _ . -"`
	Shards         int           `yaml:"shards" min:"1" max:"10000" doc:"shards of a provisioned stream, first shards of an on-demand one"`
	Mode           string        `yaml:"mode" oneof:"provisioned,on-demand" doc:"on-demand splits and merges by itself"`
	Retention      time.Duration `yaml:"retention" min:"1h" max:"8760h" doc:"how long a record is kept"`
	RetentionBytes Bytes         `yaml:"retention_bytes" doc:"bytes stored of this stream; 0 sets no bound"`
	WhenFull       string        `yaml:"when_full" oneof:"reject,drop-oldest,thin-out" doc:"what gives when space runs out"`
	Codec          string        `yaml:"codec" oneof:"zstd,s2,none,auto" doc:"how blocks are compressed"`
	MaxRecordBytes Bytes         `yaml:"max_record_bytes" min:"1MiB" max:"10MiB" doc:"largest record"`
}

func (s *Stream) setDefaults() {
	*s = Stream{Shards: 1, Mode: "provisioned", Retention: 24 * time.Hour, WhenFull: "reject", Codec: "zstd", MaxRecordBytes: 1 << 20}
}

// Wasm is the limits of modules.
type Wasm struct {
	Memory      Bytes    `yaml:"memory" min:"1MiB" max:"64GiB" doc:"linear memory of all instances together"`
	Signatures  string   `yaml:"signatures" oneof:"off,warn,require" doc:"what happens to a module without a signature by a trusted key"`
	TrustedKeys []string `yaml:"trusted_keys" doc:"files with Ed25519 public keys whose signatures count"`
}

// Delivery is the limits of all delivery streams together.
type Delivery struct {
	Memory     Bytes `yaml:"memory" min:"4MiB" max:"16GiB" doc:"memory of all uploads in flight"`
	Uploads    int   `yaml:"uploads" min:"1" max:"256" doc:"uploads in flight"`
	BitRate    Bytes `yaml:"bytes_per_second" live:"true" doc:"cap on the bytes sent per second by all sinks; 0 sets none"`
	MonthlyCap Bytes `yaml:"bytes_per_month" live:"true" doc:"budget of bytes sent per calendar month; 0 sets none"`
}

// Telemetry is what the box tells about itself.
type Telemetry struct {
	LogLevel  string `yaml:"log_level" oneof:"debug,info,warn,error" live:"true" doc:"least level that is logged"`
	LogFormat string `yaml:"log_format" oneof:"text,json" doc:"form of a log line"`
	PProf     bool   `yaml:"pprof" doc:"serve /debug/pprof/ to loopback clients"`
}

// Shutdown is how the box stops.
type Shutdown struct {
	Drain time.Duration `yaml:"drain" min:"1s" max:"10m" doc:"time for requests and uploads in flight to finish after SIGTERM; what is not finished by then is taken up at the next start"`
}

// Default is the configuration without a file. It is valid and runs.
func Default() *Config {
	return &Config{
		Dir: "weir-data",
		Listen: Listen{
			Address:        ":4567",
			Cleartext:      "loopback",
			MaxConnections: 4096,
			MaxBodyBytes:   16 << 20,
			BodyMemory:     32 << 20,
			HeaderTimeout:  10 * time.Second,
			BodyTimeout:    time.Minute,
			IdleTimeout:    5 * time.Minute,
		},
		Auth:      Auth{Anonymous: "never", ClockTolerance: 15 * time.Minute},
		Storage:   Storage{MemTableBytes: 8 << 20, CacheBytes: 8 << 20, AdmissionBytes: 8 << 20},
		Wasm:      Wasm{Memory: 64 << 20, Signatures: "warn"},
		Delivery:  Delivery{Memory: 32 << 20, Uploads: 4},
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
