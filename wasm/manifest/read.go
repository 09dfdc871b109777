package manifest

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"sort"
	"strings"
	"time"
)

func decodeBase64(s string) ([]byte, error) {
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		return nil, fmt.Errorf("%s; expecting base64", show(s))
	}
	return b, nil
}

// read fills m from a manifest's tree. The order is that of the documentation.
func (m *Manifest) read(n *node) {
	if !n.str("name", &m.Name) || !nameForm.MatchString(m.Name) {
		n.problem("name", "%q; expecting 1 to 63 of a-z, 0-9 and -, not beginning with -", m.Name)
	}
	if !n.str("version", &m.Version) || !versionForm.MatchString(m.Version) {
		n.problem("version", "%q; expecting a semantic version, as 1.0.0", m.Version)
	}
	n.str("description", &m.Description)
	m.readKind(n)
	m.Inputs = n.names("inputs", 16, streamName)
	m.Outputs = n.names("outputs", 16, streamName)
	m.readCapabilities(n.child("capabilities"))
	m.readLimits(n.child("limits"))
	m.readOnError(n.child("on_error"))
	m.readBatch(n.child("batch"))
	m.readStart(n)
	n.integer("state_version", 1, math.MaxUint32, func(v int64) { m.StateVersion = uint32(v) })
	n.duration("tick", 0, 24*time.Hour, &m.Tick)
	if m.Tick > 0 && m.Tick < 100*time.Millisecond {
		n.problem("tick", "%v; expecting 0s or at least 100ms", m.Tick)
	}
	m.readConfig(n)
	m.readEnvironment(n)
	n.list("tests", 1000, func(path string, v any) { m.readVector(n.r.node(path, v)) })
	m.checkKind(n)
}

func (m *Manifest) readKind(n *node) {
	var kind string
	n.str("kind", &kind)
	switch m.Kind = Kind(kind); m.Kind {
	case Transform, Consumer:
	default:
		n.problem("kind", "%q; expecting transform or consumer", kind)
	}
	n.str("abi", &m.ABI)
	if m.ABI != ABIWeir1 && m.ABI != ABIWASILines {
		n.problem("abi", "%q; expecting weir1 or wasi-lines", m.ABI)
	}
}

func (m *Manifest) readCapabilities(n *node) {
	c := &m.Capabilities
	n.boolean("state", &c.State)
	n.boolean("emit", &c.Emit)
	clock := "batch"
	n.str("clock", &clock)
	if clock != "batch" && clock != "real" {
		n.problem("clock", "%q; expecting batch or real", clock)
	}
	c.RealClock = clock == "real"
	h := n.child("http")
	c.Hosts = h.names("hosts", 32, hostPort)
	c.Secrets = h.names("secrets", 32, secretName)
	if len(c.Secrets) > 0 && len(c.Hosts) == 0 {
		h.problem("secrets", "secrets without hosts to send them to")
	}
	h.done()
	n.done()
}

func (m *Manifest) readLimits(n *node) {
	l := &m.Limits
	n.size("memory", 64<<10, MaxMemoryBytes, &l.MemoryBytes)
	n.duration("cpu", time.Millisecond, time.Minute, &l.CPU)
	n.duration("wall", time.Millisecond, 5*time.Minute, &l.Wall)
	n.integer("depth", 16, MaxDepth, func(v int64) { l.Depth = int(v) })
	n.size("output", 1<<10, 64<<20, &l.OutputBytes)
	n.integer("outputs_per_record", 1, math.MaxUint16, func(v int64) { l.OutputsPerRecord = int(v) })
	n.size("state", 1<<10, 16<<30, &l.StateBytes)
	n.size("state_value", 1, 1<<20, &l.StateValueBytes)
	n.integer("http_calls", 0, 1000, func(v int64) { l.HTTPCalls = int(v) })
	n.duration("http_timeout", time.Millisecond, time.Minute, &l.HTTPTimeout)
	n.integer("log_lines", 0, 10000, func(v int64) { l.LogLines = int(v) })
	n.done()
}

func (m *Manifest) readOnError(n *node) {
	o := &m.OnError
	n.integer("retries", 0, 100, func(v int64) { o.Retries = int(v) })
	then := string(o.Then)
	n.str("then", &then)
	switch o.Then = Action(then); o.Then {
	case DeadLetter, Drop, Halt:
	case PassThrough:
		if m.Kind == Consumer {
			n.problem("then", "pass_through is for transforms; expecting dead_letter, drop or halt")
		}
	default:
		n.problem("then", "%q; expecting dead_letter, drop, halt or pass_through", then)
	}
	o.DeadLetter = m.Name + "-dead-letters"
	if n.str("dead_letter", &o.DeadLetter) {
		if err := streamName(o.DeadLetter); err != nil {
			n.problem("dead_letter", "%v", err)
		}
	}
	n.done()
}

func (m *Manifest) readBatch(n *node) {
	n.integer("records", 1, MaxBatchRecords, func(v int64) { m.Batch.Records = int(v) })
	n.size("bytes", 1<<10, MaxBatchBytes, &m.Batch.Bytes)
	n.duration("wait", 0, time.Minute, &m.Batch.Wait)
	n.done()
}

func (m *Manifest) readStart(n *node) {
	start := "trim_horizon"
	n.str("start", &start)
	if start != "trim_horizon" && start != "latest" {
		n.problem("start", "%q; expecting trim_horizon or latest", start)
	}
	m.FromLatest = start == "latest"
}

func (m *Manifest) readConfig(n *node) {
	v, ok := n.get("config")
	if !ok {
		return
	}
	if _, isMap := v.(map[string]any); !isMap {
		n.problem("config", "%s; expecting a mapping", show(v))
		return
	}
	b, err := json.Marshal(v)
	if err != nil {
		n.problem("config", "can't be written as JSON: %v", err)
		return
	}
	if len(b) > 64<<10 {
		n.problem("config", "%d bytes as JSON; expecting at most %d", len(b), 64<<10)
		return
	}
	m.Config = b
}

func (m *Manifest) readEnvironment(n *node) {
	n.list("args", 64, func(path string, v any) {
		s, ok := v.(string)
		if !ok || strings.ContainsRune(s, 0) || len(s) > 4096 {
			n.r.problem(path, "%s; expecting a string", show(v))
			return
		}
		m.Args = append(m.Args, s)
	})
	env := n.child("env")
	if len(env.m) > 64 {
		n.problem("env", "%d entries; expecting at most 64", len(env.m))
	}
	keys := make([]string, 0, len(env.m))
	for k := range env.m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	for _, k := range keys {
		var s string
		if !envForm.MatchString(k) {
			env.problem(k, "expecting a name of letters, digits and _")
		}
		if env.str(k, &s) && (strings.ContainsRune(s, 0) || len(s) > 4096) {
			env.problem(k, "%s; expecting at most 4096 bytes without NUL", show(s))
		}
		m.Env = append(m.Env, k+"="+s)
	}
}

// checkKind reports what doesn't go together.
func (m *Manifest) checkKind(n *node) {
	c := &m.Capabilities
	if m.Kind == Consumer {
		if len(m.Inputs) == 0 {
			n.problem("inputs", "a consumer needs at least one stream to read")
		}
		for i, out := range m.Outputs {
			if slices.Contains(m.Inputs, out) {
				n.problem(fmt.Sprintf("outputs[%d]", i), "%q is an input too: the consumer would feed itself", out)
			}
		}
		if c.Emit && len(m.Outputs) == 0 {
			n.problem("outputs", "capability emit needs at least one stream to emit to")
		}
	} else {
		if c.State {
			n.problem("capabilities.state", "state is for consumers; kind is %s", m.Kind)
		}
		if c.Emit {
			n.problem("capabilities.emit", "emit is for consumers; kind is %s", m.Kind)
		}
		if m.Tick > 0 {
			n.problem("tick", "ticks are for consumers; kind is %s", m.Kind)
		}
	}
	if m.ABI == ABIWASILines {
		if m.Kind != Transform {
			n.problem("abi", "wasi-lines modules are transforms; kind is %s", m.Kind)
		}
		if len(c.Hosts) > 0 {
			n.problem("capabilities.http", "wasi-lines modules have no HTTP calls")
		}
	} else if len(m.Args) > 0 {
		n.problem("args", "args are for abi wasi-lines; abi is %s", m.ABI)
	}
	for i, v := range m.Tests {
		for j, o := range v.Expect {
			for k, out := range o.Outputs {
				if out.Stream >= m.Streams() {
					n.problem(fmt.Sprintf("tests[%d].expect[%d].outputs[%d].stream", i, j, k), "%d; the module has %d outputs", out.Stream, m.Streams())
				}
			}
		}
	}
}

// Streams is the number of outputs the module may write to by index: those of
// the manifest, or for a transform without any, the one it stands in.
func (m *Manifest) Streams() int {
	if m.Kind == Transform {
		return max(1, len(m.Outputs))
	}
	return len(m.Outputs)
}

func (m *Manifest) readVector(n *node) {
	v := Vector{Name: fmt.Sprintf("test %d", len(m.Tests)+1)}
	n.str("name", &v.Name)
	n.integer("time", 0, math.MaxInt64/2, func(t int64) { v.TimeMS = t })
	n.integer("tick", 0, math.MaxInt64/2, func(t int64) { v.TickMS = t })
	n.list("records", 1000, func(path string, e any) {
		rn := n.r.node(path, e)
		r := VectorRecord{TimeMS: v.TimeMS}
		rn.bytes("key", &r.Key)
		if !rn.bytes("data", &r.Data) {
			rn.problem("data", "nothing; expecting data or data_base64")
		}
		rn.integer("time", 0, math.MaxInt64/2, func(t int64) { r.TimeMS = t })
		rn.done()
		v.Records = append(v.Records, r)
	})
	n.list("expect", 1000, func(path string, e any) { v.Expect = append(v.Expect, readOutcome(n.r.node(path, e))) })
	if len(v.Expect) != len(v.Records) {
		n.problem("expect", "%d outcomes for %d records", len(v.Expect), len(v.Records))
	}
	if n.list("emits", 10000, func(path string, e any) { v.Emits = append(v.Emits, readOutput(n.r.node(path, e))) }) && v.Emits == nil {
		v.Emits = []VectorOutput{}
	}
	n.list("state", 1000, func(path string, e any) {
		sn := n.r.node(path, e)
		var s VectorState
		if !sn.bytes("key", &s.Key) || !sn.bytes("value", &s.Value) {
			sn.problem("", "expecting key and value")
		}
		sn.done()
		v.State = append(v.State, s)
	})
	n.done()
	m.Tests = append(m.Tests, v)
}

func readOutcome(n *node) VectorOutcome {
	o := VectorOutcome{Status: "unchanged"}
	n.str("status", &o.Status)
	switch o.Status {
	case "unchanged", "replaced", "dropped", "failed":
	default:
		n.problem("status", "%q; expecting unchanged, replaced, dropped or failed", o.Status)
	}
	n.integer("code", 0, math.MaxUint32, func(v int64) { o.Code = uint32(v) })
	n.list("outputs", 1000, func(path string, e any) { o.Outputs = append(o.Outputs, readOutput(n.r.node(path, e))) })
	n.done()
	return o
}

func readOutput(n *node) VectorOutput {
	var o VectorOutput
	n.integer("stream", 0, 15, func(v int64) { o.Stream = int(v) })
	n.bytes("key", &o.Key)
	n.bytes("data", &o.Data)
	n.bytes("partition_key", &o.PartitionKey)
	n.done()
	return o
}
