package main

import (
	"io"
	"os"
	"syscall"

	"github.com/weirhq/weir/appliance/fault"
)

// A file that a command is to read and can't, be it missing, is a matter of the
// machine: exit code 3. What is wrong inside it is a matter of who wrote it: 2.

// openFile opens a file to read; a folder is none. try may be empty.
func openFile(name, try string) (*os.File, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, unreadable(name, err, try)
	}
	if info, err := f.Stat(); err == nil && info.IsDir() {
		f.Close()
		return nil, unreadable(name, syscall.EISDIR, try)
	}
	return f, nil
}

// readFile returns what is in a file. try may be empty.
func readFile(name, try string) ([]byte, error) {
	f, err := openFile(name, try)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(f)
	if err != nil {
		return nil, unreadable(name, err, try)
	}
	return data, nil
}

func unreadable(name string, err error, try string) error {
	return &fault.Error{Class: fault.Environment, Subject: name, Expect: "not readable", Err: fault.Cause(err), Try: try}
}
