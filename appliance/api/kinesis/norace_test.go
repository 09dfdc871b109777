//go:build !race

package kinesis

// allocationsPerRecord is what a put may allocate for each further record.
const allocationsPerRecord = 0.05
