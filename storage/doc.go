// Package storage is the shard log: it opens a data directory, owns the one
// Pebble database in it, and offers streams of shards of records to the rest
// of the program.
//
// It owns everything durable. It never speaks HTTP, never runs a module and
// never reads a configuration file.
package storage
