// Command nats is the peer NATS JetStream of the ingest benchmark: the server with
// a file store, and its load. It is a module of its own, so that the product's
// dependencies stay the product's.
//
//	nats serve DIR SYNC   serves a stream in DIR until standard input ends; SYNC is
//	                      "always" or "default"
//	nats load ADDRESS     publishes as the orders on standard input say
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "nats:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	switch {
	case len(args) == 3 && args[0] == "serve":
		return serve(args[1], args[2])
	case len(args) == 2 && args[0] == "load":
		return load(args[1])
	}
	return errors.New("expecting: serve DIR SYNC, or load ADDRESS")
}

// serve is nats-server with JetStream on, and one stream on disk, until standard
// input ends.
func serve(dir, sync string) error {
	o := &server.Options{
		Host: "127.0.0.1", Port: server.RANDOM_PORT, MaxConn: 1 << 16, NoLog: true, NoSigs: true,
		JetStream: true, StoreDir: dir, JetStreamMaxMemory: 256 << 20, JetStreamMaxStore: 64 << 30,
		// At its default of 10,000 messages it refuses what more than 20 publishers have on the way.
		StreamMaxBufferedMsgs: 4 << 20, StreamMaxBufferedSize: 2 << 30,
	}
	switch sync {
	case "always":
		o.SyncAlways = true
	case "default": // the server's own: every two minutes
	default:
		return fmt.Errorf("sync %q, expecting always or default", sync)
	}
	s, err := server.NewServer(o)
	if err != nil {
		return err
	}
	s.Start()
	defer func() {
		s.Shutdown()
		s.WaitForShutdown()
	}()
	if !s.ReadyForConnections(20 * time.Second) {
		return errors.New("server is not ready after 20 s")
	}
	if err := json.NewEncoder(os.Stdout).Encode(map[string]string{"address": s.Addr().String()}); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// order is one round of the load.
type order struct {
	Connections int           `json:"connections"` // publishers, each on its own connection
	Records     int           `json:"records"`     // published asynchronously before waiting for all acknowledgements
	For         time.Duration `json:"for"`
	Messages    [][]byte      `json:"messages"` // what to publish, in turn
}

// outcome is what the round did.
type outcome struct {
	Records   int             `json:"records"`
	Seconds   float64         `json:"seconds"`
	Latencies []time.Duration `json:"latencies"`
	Error     string          `json:"error,omitempty"`
}

// load publishes by the orders on standard input, and answers each with its outcome.
func load(address string) error {
	orders, answers := json.NewDecoder(bufio.NewReader(os.Stdin)), json.NewEncoder(os.Stdout)
	for {
		var o order
		switch err := orders.Decode(&o); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		out, err := publish(address, o)
		if err != nil {
			out.Error = err.Error()
		}
		if err := answers.Encode(out); err != nil {
			return err
		}
	}
}

const (
	stream  = "load"
	subject = "load"
)

func publish(address string, o order) (out outcome, err error) {
	publishers := make([]jetstream.JetStream, o.Connections)
	for i := range publishers {
		nc, err := nats.Connect("nats://"+address, nats.NoReconnect(), nats.Timeout(10*time.Second))
		if err != nil {
			return out, err
		}
		defer nc.Close()
		if publishers[i], err = jetstream.New(nc, jetstream.WithPublishAsyncMaxPending(max(o.Records, 256))); err != nil {
			return out, err
		}
	}
	if err := emptyStream(publishers[0]); err != nil {
		return out, err
	}
	results, errs := make([]outcome, o.Connections), make([]error, o.Connections)
	began := time.Now()
	deadline := began.Add(o.For)
	var wg sync.WaitGroup
	for i, js := range publishers {
		wg.Go(func() { results[i], errs[i] = batches(js, o, i*o.Records, deadline) })
	}
	wg.Wait()
	out.Seconds = time.Since(began).Seconds()
	for _, r := range results {
		out.Records += r.Records
		out.Latencies = append(out.Latencies, r.Latencies...)
	}
	return out, errors.Join(errs...)
}

// batches publishes asynchronously, batch after batch, and waits for the
// acknowledgements of one before it begins the next.
func batches(js jetstream.JetStream, o order, at int, deadline time.Time) (out outcome, err error) {
	acks := make([]jetstream.PubAckFuture, 0, o.Records)
	for time.Now().Before(deadline) {
		start := time.Now()
		acks = acks[:0]
		for range o.Records {
			ack, err := js.PublishAsync(subject, o.Messages[at%len(o.Messages)])
			if err != nil {
				return out, err
			}
			acks, at = append(acks, ack), at+1
		}
		for _, ack := range acks {
			select {
			case <-ack.Ok():
			case err := <-ack.Err():
				return out, err
			case <-time.After(time.Minute):
				return out, errors.New("no acknowledgement within a minute")
			}
		}
		out.Latencies = append(out.Latencies, time.Since(start))
		out.Records += o.Records
	}
	return out, nil
}

// emptyStream makes the stream, or takes out what earlier rounds left in it.
func emptyStream(js jetstream.JetStream) error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	s, err := js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{Name: stream, Subjects: []string{subject}, Storage: jetstream.FileStorage})
	if err != nil {
		return err
	}
	return s.Purge(ctx)
}
