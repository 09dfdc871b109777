// Package keyspace encodes and decodes every key and value of the one Pebble
// database, and is the only place that does. FORMAT.md describes the bytes.
//
// It owns no state and touches no files.
package keyspace
