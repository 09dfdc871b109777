package config

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// maxReferenceBytes bounds a value that stands in a file of its own.
const maxReferenceBytes = 64 << 10

// references reads the values that the file only points to, so that it needs no
// secrets in it: "${env:NAME}" is a variable of the environment, "${file:/path}"
// the content of a file, without the newline at its end. A reference is a whole
// value: what is around it would be a guess.
type references struct {
	environ []string
	used    map[string]bool // names of the variables that were pointed to
}

// value returns what the text points to, and the text itself when it points nowhere.
func (r *references) value(text string) (string, error) {
	inner, opens := strings.CutPrefix(text, "${")
	inner, closes := strings.CutSuffix(inner, "}")
	if !opens || !closes {
		if strings.Contains(text, "${env:") || strings.Contains(text, "${file:") {
			return "", errors.New("has more than a reference; expecting ${env:NAME} or ${file:/path} as the whole value")
		}
		return text, nil
	}
	switch kind, name, _ := strings.Cut(inner, ":"); kind {
	case "env":
		return r.variable(name)
	case "file":
		return fileContent(name)
	}
	return "", fmt.Errorf("%s is no reference; expecting ${env:NAME} or ${file:/path}", quoted(text))
}

func (r *references) variable(name string) (string, error) {
	value := ""
	for _, pair := range r.environ {
		if k, v, _ := strings.Cut(pair, "="); k == name {
			value = v // the last one counts, as for everybody
		}
	}
	r.used[name] = true
	if value == "" {
		return "", fmt.Errorf("the variable %s is not set", quoted(name))
	}
	return value, nil
}

func fileContent(path string) (string, error) {
	if !filepath.IsAbs(path) {
		return "", fmt.Errorf("%s is not a whole path; expecting ${file:/path}", quoted(path))
	}
	info, err := os.Stat(path) // before it is opened: a pipe would wait for its writer
	if err != nil {
		return "", fmt.Errorf("%s can't be read: %w", path, cause(err))
	}
	if !info.Mode().IsRegular() {
		return "", fmt.Errorf("%s is not a file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("%s can't be read: %w", path, cause(err))
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxReferenceBytes+1))
	if err != nil {
		return "", fmt.Errorf("%s can't be read: %w", path, cause(err))
	}
	text := strings.TrimSuffix(strings.TrimSuffix(string(data), "\n"), "\r")
	switch {
	case len(data) > maxReferenceBytes:
		return "", fmt.Errorf("%s has more than %d bytes", path, maxReferenceBytes)
	case text == "":
		return "", fmt.Errorf("%s is empty", path)
	}
	return text, nil
}

// values replaces the references among the strings of settings. at is called with
// the path of each that leads nowhere.
func (r *references) values(v any, path string, at func(path string, err error)) any {
	switch v := v.(type) {
	case string:
		text, err := r.value(v)
		if err != nil {
			at(path, err)
		}
		return text
	case map[string]any:
		for name, x := range v {
			v[name] = r.values(x, join(path, name), at)
		}
	case []any:
		for i, x := range v {
			v[i] = r.values(x, fmt.Sprintf("%s[%d]", path, i), at)
		}
	}
	return v
}
