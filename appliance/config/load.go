package config

import (
	"errors"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/weirhq/weir/appliance/fault"
)

// EnvPrefix begins the name of every environment variable that is read.
const EnvPrefix = "WEIR_"

// clientEnv are the variables the command line reads for itself: they are no
// settings of the box, and not unknown either.
var clientEnv = []string{"WEIR_DIR", "WEIR_CONFIG", "WEIR_ENDPOINT", "WEIR_CA", "WEIR_ACCESS_KEY_ID", "WEIR_SECRET_ACCESS_KEY"}

// Loaded is a configuration with the origin of each of its values.
type Loaded struct {
	*Config
	File    string            // the file read, empty for none
	origins map[string]string // by path: "file:line" or the variable's name
}

// Load reads the configuration: Default, then the file (none when its name is
// empty) with what its values refer to, then the environment, given as "NAME=value"
// strings. The result is valid, by the checks of who knows more than the tree, too. A file that can't be read is a fault of class Environment; anything
// wrong inside it, or in the environment, is a fault of class Usage around
// Problems, which holds all of them.
func Load(file string, environ []string, checks ...func(*Config) Problems) (*Loaded, error) {
	l := &Loaded{Config: Default(), File: file, origins: map[string]string{}}
	var problems Problems
	refs := &references{environ: environ, used: map[string]bool{}}
	if file != "" {
		data, err := os.ReadFile(file)
		if err != nil {
			return nil, &fault.Error{Class: fault.Environment, Subject: "configuration file", Value: file, Expect: "not readable", Err: cause(err), Try: "weir config explain, which shows the defaults that run without a file"}
		}
		origins, found := decode(l.Config, file, data, refs)
		for path, origin := range origins {
			l.origins[path] = origin
		}
		problems = append(problems, found...)
	}
	problems = append(problems, l.environment(environ, refs.used)...)
	for i := range l.Streams {
		if s := &l.Streams[i]; s.Mode == "on-demand" && !l.Sets(fmt.Sprintf("streams[%d].shards", i)) {
			s.Shards = OnDemandShards
		}
	}
	invalid := l.Validate()
	for _, check := range checks {
		invalid = append(invalid, check(l.Config)...)
	}
	for _, p := range invalid {
		if !slices.ContainsFunc(problems, func(q Problem) bool { return q.Path == p.Path }) {
			problems = append(problems, l.locate(p))
		}
	}
	if len(problems) > 0 {
		problems.sort(l.File)
		return nil, &fault.Error{Class: fault.Usage, Err: problems, Try: "weir config explain, which lists every key with its unit and default"}
	}
	return l, nil
}

// cause strips the path from an os error: the fault names it already.
func cause(err error) error {
	var p *os.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

// environment applies the WEIR_… variables. A name that is no setting, and that the
// file does not refer to, is a problem like an unknown key.
func (l *Loaded) environment(environ []string, used map[string]bool) Problems {
	type target struct {
		path  string
		value reflect.Value
	}
	targets := map[string]target{}
	walk(reflect.ValueOf(l.Config).Elem(), "", func(path string, _ reflect.StructField, v reflect.Value) {
		if !strings.Contains(path, "[") {
			targets[EnvName(path)] = target{path, v}
		}
	})
	var problems Problems
	for _, pair := range environ {
		name, value, _ := strings.Cut(pair, "=")
		if !strings.HasPrefix(name, EnvPrefix) || slices.Contains(clientEnv, name) || used[name] {
			continue
		}
		t, ok := targets[name]
		if !ok {
			expect := "unknown variable; expecting " + EnvPrefix + " and a setting's path in capitals, such as " + EnvName("listen.address")
			names := slices.Sorted(func(yield func(string) bool) {
				for n := range targets {
					if !yield(n) {
						return
					}
				}
			})
			if near := closest(name, names); near != "" {
				expect = fmt.Sprintf("unknown variable; did you mean %s?", near)
			}
			if list := entries(name); list != "" {
				expect = "the entries of " + list + " can be set in the file only, which weir serve --config names; a value there may be \"${env:NAME}\", for a variable of your own"
			}
			problems = append(problems, Problem{Source: "environment", Path: name, Text: expect})
			continue
		}
		if err := setText(t.value, value); err != nil {
			problems = append(problems, Problem{Source: "environment", Path: name, Text: err.Error()})
			continue
		}
		l.origins[t.path] = name
	}
	return problems
}

// entries returns the list with entries of several keys that the variable is meant for, if
// there is one.
func entries(name string) (path string) {
	walkLists(reflect.ValueOf(&Config{}).Elem(), "", func(string, reflect.StructField, reflect.Value) {}, func(list string, _ reflect.Value) {
		if env := EnvName(list); name == env || strings.HasPrefix(name, env+"_") {
			path = list
		}
	})
	return path
}

// Sets says whether the file or the environment sets the value at the path, which is
// otherwise the default.
func (l *Loaded) Sets(path string) bool {
	_, ok := l.origins[path]
	return ok
}

// locate adds the file and line, or the variable, that a problem comes from.
func (l *Loaded) locate(p Problem) Problem {
	origin, ok := l.origins[p.Path]
	if !ok {
		p.Source, p.Line = l.entry(p.Path)
		return p
	}
	if !strings.HasPrefix(origin, l.File+":") {
		p.Source = origin
		return p
	}
	if line, err := strconv.Atoi(strings.TrimPrefix(origin, l.File+":")); err == nil {
		p.Line = line
	}
	p.Source = l.File
	return p
}

// entry returns where the list entry begins that a path without a line of its own
// belongs to: the first line that sets something in it.
func (l *Loaded) entry(path string) (source string, first int) {
	end := strings.LastIndexByte(path, ']')
	if end < 0 {
		return "", 0
	}
	for set, origin := range l.origins {
		if !strings.HasPrefix(set, path[:end+1]) {
			continue
		}
		line, err := strconv.Atoi(strings.TrimPrefix(origin, l.File+":"))
		if err == nil && (first == 0 || line < first) {
			source, first = l.File, line
		}
	}
	return source, first
}

// EnvName returns the environment variable of a path: listen.address is
// WEIR_LISTEN_ADDRESS. Entries of lists have none.
func EnvName(path string) string {
	return EnvPrefix + strings.ToUpper(strings.ReplaceAll(path, ".", "_"))
}
