package storagetest

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/weirhq/weir/storage"
	"github.com/weirhq/weir/storage/record"
)

// Inputs and outputs of the history: an append of one record, or a read of the
// whole shard.
type (
	appendInput struct{ value int }
	readInput   struct{}
)

// logModel is a shard as porcupine sees it: an append goes to the end and says
// where that was, a read sees everything before it.
var logModel = porcupine.Model{
	Init: func() any { return []int(nil) },
	Step: func(state, input, output any) (bool, any) {
		log := state.([]int)
		switch in := input.(type) {
		case appendInput:
			if output.(int) != len(log)+1 {
				return false, state
			}
			return true, append(log[:len(log):len(log)], in.value)
		case readInput:
			got := output.([]int)
			if len(got) != len(log) {
				return false, state
			}
			for i := range got {
				if got[i] != log[i] {
					return false, state
				}
			}
			return true, state
		}
		panic(fmt.Sprintf("BUG: input %T", input))
	},
	Equal: func(a, b any) bool {
		x, y := a.([]int), b.([]int)
		if len(x) != len(y) {
			return false
		}
		for i := range x {
			if x[i] != y[i] {
				return false
			}
		}
		return true
	},
	DescribeOperation: func(input, output any) string { return fmt.Sprintf("%+v → %v", input, output) },
}

// TestAppendsAndReadsAreLinearizable runs writers and readers of one shard at the
// same time: some order of the operations, in keeping with when each began and
// ended, explains all that was returned.
func TestAppendsAndReadsAreLinearizable(t *testing.T) {
	ctx := context.Background()
	s, err := storage.Open(ctx, walkDir, storage.Options{FS: vfs.NewMem(), ReserveBytes: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	st, err := s.CreateStream(ctx, storage.StreamConfig{Name: "a", Shards: 1})
	if err != nil {
		t.Fatal(err)
	}
	const writers, readers, each = 6, 3, 30
	var mu sync.Mutex
	var history []porcupine.Operation
	start := time.Now()
	run := func(client int, input any, do func() (any, error)) {
		call := time.Since(start).Nanoseconds()
		out, err := do()
		if err != nil {
			t.Errorf("client %d: %v", client, err)
			return
		}
		op := porcupine.Operation{ClientId: client, Input: input, Call: call, Output: out, Return: time.Since(start).Nanoseconds()}
		mu.Lock()
		history = append(history, op)
		mu.Unlock()
	}
	var wg sync.WaitGroup
	for c := range writers {
		wg.Go(func() {
			for i := range each {
				value := c*each + i
				run(c, appendInput{value}, func() (any, error) { return appendValue(ctx, s, st, value) })
			}
		})
	}
	for c := range readers {
		wg.Go(func() {
			for range each {
				run(writers+c, readInput{}, func() (any, error) { return readValues(st) })
			}
		})
	}
	wg.Wait()
	if result, _ := porcupine.CheckOperationsVerbose(logModel, history, 2*time.Minute); result != porcupine.Ok {
		t.Fatalf("history of %d operations: %v", len(history), result)
	}
}

func appendValue(ctx context.Context, s *storage.Store, st *storage.Stream, value int) (int, error) {
	tx, err := s.Begin(ctx, 16)
	if err != nil {
		return 0, err
	}
	defer tx.Release()
	if err := tx.Append(st, []byte("k"), nil, fmt.Appendf(nil, "%d", value)); err != nil {
		return 0, err
	}
	if err := tx.Commit(ctx); err != nil {
		return 0, err
	}
	_, index, _ := tx.Result(0)
	return int(index), nil
}

func readValues(st *storage.Stream) ([]int, error) {
	values := []int{}
	all, err := ReadAll(st, record.ShardNumber(0), storage.Position{Kind: storage.TrimHorizon})
	for _, r := range all {
		var v int
		if _, err := fmt.Sscan(string(r.Data), &v); err != nil {
			return nil, err
		}
		values = append(values, v)
	}
	return values, err
}
