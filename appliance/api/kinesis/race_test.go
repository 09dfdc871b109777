//go:build race

package kinesis

// allocationsPerRecord is generous here: under the race detector a sync.Pool
// loses a part of what it is given, so that races over it show.
const allocationsPerRecord = 0.5
