package host

import (
	"bytes"
	"time"
)

// logState is the rate limit over an instance's log lines.
type logState struct {
	second  time.Time // start of the second being counted
	lines   int       // lines logged in it
	dropped uint64
	partial [3][]byte // what WASI descriptors 1 and 2 wrote since their last newline
}

// log cuts, counts and hands on one line.
func (i *Instance) log(level Level, line []byte) {
	if now := time.Now(); now.Sub(i.logs.second) >= time.Second {
		i.logs.second, i.logs.lines = now, 0
	}
	if i.logs.lines++; i.logs.lines > i.o.Limits.LogLinesPerSecond {
		i.logs.dropped++
		return
	}
	if i.o.Log != nil {
		i.o.Log(level, line[:min(len(line), i.o.Limits.LogLineBytes)])
	}
}

// LogLinesDropped is how many log lines of the instance the rate limit has swallowed.
func (i *Instance) LogLinesDropped() uint64 { return i.logs.dropped }

// logBytes logs what a guest wrote to a WASI descriptor line by line. Of an
// unfinished line it keeps no more than Limits.LogLineBytes.
func (i *Instance) logBytes(fd int, level Level, b []byte) {
	for len(b) > 0 {
		head, rest, whole := bytes.Cut(b, []byte{'\n'})
		room := i.o.Limits.LogLineBytes - len(i.logs.partial[fd])
		i.logs.partial[fd] = append(i.logs.partial[fd], head[:min(len(head), room)]...)
		if whole {
			i.log(level, i.logs.partial[fd])
			i.logs.partial[fd] = i.logs.partial[fd][:0]
		}
		b = rest
	}
}
