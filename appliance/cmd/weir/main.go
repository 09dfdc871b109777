// Command weir is the appliance and its tools in one binary: Kinesis and
// Firehose for a small box.
//
// It owns flags, signals, what is printed and the exit code: 0 well, 1 a
// failure at work, 2 a wrong command line or configuration, 3 a machine that is
// not as it must be (a file that can't be read for one), 128 plus the number of the signal that ended it. Each verb
// is a file of this folder. It never does the work itself: packages below do.
package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/weirhq/weir/wasm/host"
)

// sameRequest is how soon after a signal another one is still the same request: timeout(1)
// signals the process and then its group, the process among it.
const sameRequest = 250 * time.Millisecond

func main() {
	host.ServeCompile() // returns unless this process was started to compile a module
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var caught atomic.Int32
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		var first time.Time
		for {
			number := (<-signals).(syscall.Signal)
			if first.IsZero() {
				first = time.Now()
				caught.Store(int32(number))
				cancel()
			} else if time.Since(first) > sameRequest { // asked twice: the drain is not waited for
				os.Exit(128 + int(number))
			}
		}
	}()
	code := run(ctx, os.Args[1:], streams{os.Stdin, os.Stdout, os.Stderr}, os.Environ())
	if code == exitSignal {
		code = 128 + int(caught.Load())
	}
	os.Exit(code)
}

// streams is what a command reads and writes.
type streams struct {
	in       io.Reader
	out, err io.Writer
}
