package sink

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/weirhq/weir/appliance/sink/s3"
)

// Problem is one thing that is wrong with a configured sink.
type Problem struct {
	Path string // such as sinks[1].settings.bucket
	Text string // the value, if it is no secret, and the expectation
}

// Check returns everything that is wrong with the sinks of a configuration. It looks at
// values only: whether a sink can be reached, and a file it names be read, is found out
// by who opens it.
func Check(sinks []Config) []Problem {
	var out []Problem
	add := func(path, format string, args ...any) {
		out = append(out, Problem{path, fmt.Sprintf(format, args...)})
	}
	names, standard := map[string]int{}, -1
	for i, c := range sinks {
		at := fmt.Sprintf("sinks[%d]", i)
		if j, taken := names[c.Name]; c.Name == "" {
			add(at+".name", "empty; expecting a name for delivery streams to use")
		} else if taken {
			add(at+".name", "%s is the name of sinks[%d] too; expecting each name once", c.Name, j)
		} else {
			names[c.Name] = i
		}
		k, known := kinds[c.Kind]
		if !known {
			add(at+".kind", "%q is unknown; expecting one of %s", c.Kind, strings.Join(Kinds(), ", "))
			continue
		}
		if c.Default {
			if c.Kind != "s3" && c.Kind != "file" {
				add(at+".default", "a %s sink stores no objects; expecting s3 or file", c.Kind)
			} else if standard >= 0 {
				add(at+".default", "sinks[%d] is the default already; expecting one", standard)
			}
			standard = i
		}
		for _, p := range k.check(c.Settings) {
			add(strings.TrimSuffix(at+".settings."+p.Path, "."), "%s", p.Text)
		}
	}
	return out
}

// check returns what is wrong with settings of type T, with paths below them: keys that
// are unknown, values of another kind, and, when there are none of these, what validate
// finds.
func check[T any](raw json.RawMessage, validate func(*T) error) []Problem {
	var members map[string]json.RawMessage
	if len(raw) > 0 && json.Unmarshal(raw, &members) != nil {
		return []Problem{{"", "expecting a mapping of keys"}}
	}
	var settings T
	fields, known := map[string]reflect.Value{}, []string(nil)
	for f, v := range reflect.ValueOf(&settings).Elem().Fields() {
		key, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		fields[key], known = v, append(known, key)
	}
	slices.Sort(known)
	var out []Problem
	for _, key := range slices.Sorted(func(yield func(string) bool) {
		for k := range members {
			if !yield(k) {
				return
			}
		}
	}) {
		field, ok := fields[key]
		if !ok {
			out = append(out, Problem{key, "unknown key; expecting one of " + strings.Join(known, ", ")})
		} else if err := json.Unmarshal(members[key], field.Addr().Interface()); err != nil {
			out = append(out, Problem{key, mismatch(members[key], field.Type(), err)})
		}
	}
	if out != nil {
		return out
	}
	err := validate(&settings)
	if err == nil {
		return nil
	}
	causes := []error{err}
	if joined, several := err.(interface{ Unwrap() []error }); several {
		causes = joined.Unwrap()
	}
	for _, cause := range causes {
		key, text, _ := strings.Cut(cause.Error(), ": ")
		if _, ok := fields[key]; !ok {
			key, text = "", cause.Error()
		}
		out = append(out, Problem{key, text})
	}
	return out
}

// mismatch words what is wrong with a value of another kind than its key's. The value
// itself may be a secret.
func mismatch(value json.RawMessage, want reflect.Type, err error) string {
	if wrong := (*json.UnmarshalTypeError)(nil); !errors.As(err, &wrong) {
		return err.Error()
	}
	if want.Kind() == reflect.Pointer {
		want = want.Elem()
	}
	switch want.Kind() {
	case reflect.String:
		if len(bytes.TrimLeft(value, "-0123456789.eEtrufalsn")) == 0 {
			return "a number or a switch; expecting a text, so put it in quotes"
		}
		return "expecting a text"
	case reflect.Bool:
		return "not a switch; expecting true or false"
	case reflect.Int, reflect.Int64:
		return "not a whole number"
	case reflect.Map:
		return "expecting a mapping of names to texts"
	}
	return err.Error()
}

// checkS3 is Validate, but that the bucket may come from the delivery stream.
func checkS3(s *s3.Settings) error {
	if s.Bucket == "" {
		s.Bucket = "of-a-delivery-stream"
	}
	return s.Validate()
}
