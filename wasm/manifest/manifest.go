// Package manifest reads the YAML file that stands beside a module and says
// what the module is: its name and version, whether it transforms or consumes,
// what it may reach, what it may use up and what happens to records it can't
// handle. The manifest is signed together with the module.
//
// Reading is strict: an unknown key, a duplicate, an anchor or a value out of
// range is a problem, and all problems are reported at once, each with its
// path. A manifest that Parse accepts is complete; every default is filled in.
//
// The package knows nothing of how modules run. A manifest with every key:
//
//	name: hot-devices               # a-z, 0-9 and -, at most 63
//	version: 1.4.0                  # semantic version
//	description: Alerts when a device runs hot.
//	kind: consumer                  # transform | consumer
//	abi: weir1                      # weir1 | wasi-lines
//	inputs: [sensors]               # streams; consumers need at least one
//	outputs: [alerts]               # streams emitted to, by index in the ABI
//	capabilities:
//	  state: true                   # weir_state; consumers
//	  emit: true                    # weir_emit; consumers
//	  clock: batch                  # batch | real
//	  http:
//	    hosts: ["api.example.com:443"]
//	    secrets: [api-token]        # names; the host puts the values in
//	limits:
//	  memory: 16MiB                 # linear memory, at most 64MiB
//	  cpu: 100ms                    # per call, as fuel: 1 ms = 1,000,000 operators
//	  wall: 2s                      # per call, host calls included
//	  depth: 1900                   # nested calls
//	  output: 4MiB                  # per call, keys and values
//	  outputs_per_record: 16
//	  state: 64MiB                  # per shard
//	  state_value: 64KiB
//	  http_calls: 10                # per call
//	  http_timeout: 1s              # per request
//	  log_lines: 100                # per second and instance
//	on_error:
//	  retries: 3
//	  then: dead_letter             # dead_letter | drop | halt | pass_through
//	  dead_letter: hot-devices-dead # stream; default NAME-dead-letters
//	batch: {records: 500, bytes: 1MiB, wait: 100ms}
//	start: trim_horizon             # trim_horizon | latest; consumers, first run
//	state_version: 1
//	tick: 10s                       # weir_tick; consumers; 0s = never
//	config: {threshold: 80}         # handed to weir_configure as JSON
//	args: []                        # wasi-lines
//	env: {}                         # WASI guests
//	tests:
//	  - name: hot
//	    records: [{key: d1, data: '{"temp":90}'}]
//	    expect: [{status: replaced, outputs: [{stream: 0, data: '{"hot":true}'}]}]
package manifest

import (
	"encoding/json"
	"errors"
	"regexp"
	"strings"
	"time"
)

// MaxBytes is the size of the largest manifest accepted.
const MaxBytes = 256 << 10

// Kind says what a module does with records.
type Kind string

// The kinds of module.
const (
	Transform Kind = "transform" // one batch in, its outcome out; no state
	Consumer  Kind = "consumer"  // owns shards, keeps state, emits to streams
)

// The contracts a module can be written against.
const (
	ABIWeir1     = "weir1"
	ABIWASILines = "wasi-lines"
)

// Action is what happens to a record that failed for good.
type Action string

// The actions of on_error.then.
const (
	DeadLetter  Action = "dead_letter"  // written to the dead-letter stream
	Drop        Action = "drop"         // counted and left out
	Halt        Action = "halt"         // the shard waits until someone acts
	PassThrough Action = "pass_through" // a transform forwards it unchanged
)

// Manifest describes one version of a module. See the package documentation
// for the file it is read from.
type Manifest struct {
	Name, Version, Description string
	Kind                       Kind
	ABI                        string
	Inputs, Outputs            []string
	Capabilities               Capabilities
	Limits                     Limits
	OnError                    OnError
	Batch                      Batch
	FromLatest                 bool // start: latest
	StateVersion               uint32
	Tick                       time.Duration
	Config                     json.RawMessage // a JSON object
	Args                       []string
	Env                        []string // NAME=value, sorted
	Tests                      []Vector
}

// Capabilities are what a module may reach beyond its records, its log and its
// metrics.
type Capabilities struct {
	State, Emit bool
	RealClock   bool
	Hosts       []string // host:port, exact
	Secrets     []string
}

// Limits bound one call into the module, and what it keeps.
type Limits struct {
	MemoryBytes      int64
	CPU              time.Duration
	Wall             time.Duration
	Depth            int
	OutputBytes      int64
	OutputsPerRecord int
	StateBytes       int64
	StateValueBytes  int64
	HTTPCalls        int
	HTTPTimeout      time.Duration
	LogLines         int
}

// OnError says how often a failing record is tried again and what then.
type OnError struct {
	Retries    int
	Then       Action
	DeadLetter string // name of the dead-letter stream
}

// Batch bounds what is handed to the module at once, and how long records wait
// for a batch to fill.
type Batch struct {
	Records int
	Bytes   int64
	Wait    time.Duration
}

// Vector is a test that travels with the module: records in, outcomes out.
type Vector struct {
	Name    string
	TimeMS  int64 // the batch's clock
	Records []VectorRecord
	Expect  []VectorOutcome // one per record
	TickMS  int64           // consumers: call weir_tick afterwards, 0 = don't
	Emits   []VectorOutput  // consumers: all that is emitted, in order; nil = not compared
	State   []VectorState   // consumers: entries that must be there afterwards
}

// VectorRecord is an input of a Vector.
type VectorRecord struct {
	Key, Data []byte
	TimeMS    int64
}

// VectorOutcome is what must become of a record.
type VectorOutcome struct {
	Status  string // unchanged, replaced, dropped or failed
	Code    uint32 // failed; compared when not 0
	Outputs []VectorOutput
}

// VectorOutput is an output a record must have.
type VectorOutput struct {
	Stream       int
	Key          []byte // nil = not compared
	Data         []byte
	PartitionKey []byte // nil = not compared
}

// VectorState is a state entry that must exist.
type VectorState struct{ Key, Value []byte }

// Problem is one thing wrong with a manifest.
type Problem struct {
	Path string // as limits.memory or tests[0].expect[2].status
	Text string // value and expectation
}

// Problems is the error of Parse: everything wrong with a manifest, in the
// order of its keys.
type Problems []Problem

// Error returns one problem a line, "manifest: path: text".
func (p Problems) Error() string {
	lines := make([]string, len(p))
	for i, q := range p {
		lines[i] = "manifest: " + q.Text
		if q.Path != "" {
			lines[i] = "manifest: " + q.Path + ": " + q.Text
		}
	}
	return strings.Join(lines, "\n")
}

// Default returns a transform's manifest with every default filled in; name
// and version are empty.
func Default() Manifest {
	return Manifest{
		Kind:   Transform,
		ABI:    ABIWeir1,
		Config: json.RawMessage("{}"),
		Limits: Limits{
			MemoryBytes: 16 << 20, CPU: 100 * time.Millisecond, Wall: 2 * time.Second, Depth: 1900,
			OutputBytes: 4 << 20, OutputsPerRecord: 16, StateBytes: 64 << 20, StateValueBytes: 64 << 10,
			HTTPCalls: 10, HTTPTimeout: time.Second, LogLines: 100,
		},
		OnError:      OnError{Retries: 3, Then: DeadLetter},
		Batch:        Batch{Records: 500, Bytes: 1 << 20, Wait: 100 * time.Millisecond},
		StateVersion: 1,
	}
}

// Highest values a manifest may ask for.
const (
	MaxMemoryBytes  = 64 << 20
	MaxDepth        = 1900
	MaxBatchRecords = 10000
	MaxBatchBytes   = 16 << 20
)

// Within returns l with no field above the one of ceiling that is not zero:
// the operator has the last word.
func (l Limits) Within(ceiling Limits) Limits {
	l.MemoryBytes = within(l.MemoryBytes, ceiling.MemoryBytes)
	l.CPU = within(l.CPU, ceiling.CPU)
	l.Wall = within(l.Wall, ceiling.Wall)
	l.Depth = within(l.Depth, ceiling.Depth)
	l.OutputBytes = within(l.OutputBytes, ceiling.OutputBytes)
	l.OutputsPerRecord = within(l.OutputsPerRecord, ceiling.OutputsPerRecord)
	l.StateBytes = within(l.StateBytes, ceiling.StateBytes)
	l.StateValueBytes = within(l.StateValueBytes, ceiling.StateValueBytes)
	l.HTTPCalls = within(l.HTTPCalls, ceiling.HTTPCalls)
	l.HTTPTimeout = within(l.HTTPTimeout, ceiling.HTTPTimeout)
	l.LogLines = within(l.LogLines, ceiling.LogLines)
	return l
}

func within[T int | int64 | time.Duration](v, ceiling T) T {
	if ceiling > 0 {
		return min(v, ceiling)
	}
	return v
}

var (
	nameForm    = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)
	versionForm = regexp.MustCompile(`^(0|[1-9][0-9]{0,5})\.(0|[1-9][0-9]{0,5})\.(0|[1-9][0-9]{0,5})(-[0-9A-Za-z.-]{1,40})?$`)
	streamForm  = regexp.MustCompile(`^[a-zA-Z0-9_.-]{1,128}$`)
	secretForm  = regexp.MustCompile(`^[a-zA-Z0-9_-]{1,64}$`)
	envForm     = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,63}$`)
)

// errSyntax is the cause of problems that keep a manifest from being read at all.
var errSyntax = errors.New("syntax")
