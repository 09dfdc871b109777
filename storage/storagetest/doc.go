// Package storagetest proves the store: a reference model in plain Go, a random
// walk of every operation that holds the store against it through closes, crashes
// and power cuts, and sweeps that fail or cut the power at each write in turn.
//
// It owns what "correct" means for a store of shards: an acknowledged record is
// there once, in order, with its bytes, until retention takes it; a transaction is
// there whole or not at all. A second implementation of the surface is correct
// when it passes. It never reads the store's files.
package storagetest
