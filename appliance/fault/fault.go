// Package fault is the form of every error that an operator reads: what it is
// about, the value that was found, what was expected, and what to try.
//
// It owns the form and the class that decides the exit code of the command. It
// never decides whether something is an error, never logs and never exits.
package fault

import (
	"errors"
	"net"
	"net/url"
	"os"
	"strings"
)

// Class says whose move it is, and is the exit code of a command that ends
// with the error.
type Class int

// The classes. A command that ends well exits with 0; one that is ended by a
// signal exits with 128 plus its number.
const (
	Runtime     Class = 1 // something went wrong while working
	Usage       Class = 2 // the command line or the configuration is wrong
	Environment Class = 3 // the machine is not as it must be: a port taken, a disk full, a file unreadable
)

// Error is one finding about one subject. Its text is
// "subject: value: expectation: cause", leaving out what is empty.
type Error struct {
	Class   Class
	Subject string // what it is about, such as "listen.address" or a path
	Value   string // what was found there
	Expect  string // what would have been right, or what is so about the value
	Try     string // a command or an edit that helps; shown on a line of its own
	Err     error  // the cause, if another error is behind it
}

// Error returns the text without the Try line.
func (e *Error) Error() string {
	parts := make([]string, 0, 4)
	for _, p := range []string{e.Subject, e.Value, e.Expect} {
		if p != "" {
			parts = append(parts, p)
		}
	}
	if e.Err != nil {
		parts = append(parts, e.Err.Error())
	}
	return strings.Join(parts, ": ")
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// ClassOf returns the class of the first Error in err's tree that has one, and
// Runtime when none has.
func ClassOf(err error) Class {
	var e *Error
	for errors.As(err, &e) {
		if e.Class != 0 {
			return e.Class
		}
		err = e.Err
	}
	return Runtime
}

// TryOf returns the advice of the first Error in err's tree that has one.
func TryOf(err error) string {
	var e *Error
	for errors.As(err, &e) {
		if e.Try != "" {
			return e.Try
		}
		err = e.Err
	}
	return ""
}

// Cause drops the layers of an error that repeat its subject: the URL, the
// address, the path and the system call that an Error names itself.
func Cause(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	var op *net.OpError
	if errors.As(err, &op) {
		err = op.Err
	}
	var path *os.PathError
	if errors.As(err, &path) {
		err = path.Err
	}
	var sys *os.SyscallError
	if errors.As(err, &sys) {
		err = sys.Err
	}
	return err
}
