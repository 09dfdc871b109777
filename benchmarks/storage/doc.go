// Package storage measures the shard log against what bounds it: an append-only
// segment log of our own with the same codec and the same groups, and the layout
// anybody would start with, one key per record on Pebble's defaults.
//
// All engines run in one process, in turn, round after round, so that a machine
// that slows down slows all of them; ratios are taken per round and the median is
// shown. It never asserts.
package storage
