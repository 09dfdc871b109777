// Package e2e holds the tests of the whole binary: it is built, started, written
// to by several clients, killed at random moments, started again and read back.
//
// It owns no product code, and uses the binary only as a user does: by its
// command line and its port.
package e2e
