package fault

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"testing"
)

func TestTextLeavesOutWhatIsEmpty(t *testing.T) {
	cause := errors.New("cause")
	for want, e := range map[string]*Error{
		"subject: value: expectation: cause": {Subject: "subject", Value: "value", Expect: "expectation", Err: cause, Try: "never in the text"},
		"subject: expectation":               {Subject: "subject", Expect: "expectation"},
		"value: cause":                       {Value: "value", Err: cause},
		"cause":                              {Err: cause},
		"":                                   {},
	} {
		if got := e.Error(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestClassAndAdviceAreFoundThroughWrapping(t *testing.T) {
	inner := &Error{Class: Environment, Subject: "disk", Try: "a larger one", Err: fs.ErrPermission}
	outer := fmt.Errorf("open: %w", &Error{Subject: "log", Err: errors.Join(errors.New("other"), inner)})
	if ClassOf(inner) != Environment || ClassOf(fmt.Errorf("a: %w", inner)) != Environment {
		t.Error("the class of a wrapped fault is lost")
	}
	if ClassOf(errors.New("plain")) != Runtime || ClassOf(&Error{}) != Runtime {
		t.Error("an error without a class is not of class Runtime")
	}
	if got := TryOf(outer); got != "a larger one" {
		t.Errorf("advice %q of the fault within", got)
	}
	if got := TryOf(errors.New("plain")); got != "" {
		t.Errorf("advice %q out of nowhere", got)
	}
	if !errors.Is(outer, fs.ErrPermission) {
		t.Error("the cause is lost")
	}
}

func TestCauseIsWhatIsLeftWithoutTheSubject(t *testing.T) {
	_, noFile := os.Open("/nonexistent/file")
	_, noPort := net.Dial("tcp", "127.0.0.1:1")
	for want, err := range map[string]error{
		"no such file or directory": fmt.Errorf("read: %w", noFile),
		"connection refused":        &url.Error{Op: "Get", URL: "https://box", Err: noPort},
		"plain":                     errors.New("plain"),
	} {
		if got := Cause(err).Error(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// A fault that has no class of its own does not hide one below it.
func TestClassIsThatOfTheFirstFaultThatHasOne(t *testing.T) {
	err := &Error{Subject: "check", Err: &Error{Class: Usage}}
	if got := ClassOf(err); got != Usage {
		t.Errorf("class %d, want %d", got, Usage)
	}
}
