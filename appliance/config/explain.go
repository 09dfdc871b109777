package config

import (
	"reflect"
)

// Setting is one value of the tree, with where it comes from and what it does.
type Setting struct {
	Path    string `json:"path"`
	Value   string `json:"value"`
	Default string `json:"default"`
	Origin  string `json:"origin"` // "default", "file:line", or a variable's name
	Env     string `json:"env,omitempty"`
	Live    bool   `json:"live"` // applied by a reload, without a restart
	Doc     string `json:"doc"`
	Min     string `json:"min,omitempty"`
	Max     string `json:"max,omitempty"`
	OneOf   string `json:"one_of,omitempty"`
}

// Explain returns every setting in the order of the tree. Secrets show as ***. A list
// without elements shows what one may have, at "sinks[].name" and the like.
func (l *Loaded) Explain() []Setting {
	defaults := map[string]string{}
	walk(reflect.ValueOf(Default()).Elem(), "", func(path string, _ reflect.StructField, v reflect.Value) {
		defaults[path] = text(v)
	})
	var settings []Setting
	add := func(path string, field reflect.StructField, v reflect.Value) {
		s := Setting{
			Path: path, Value: text(v), Default: defaults[path], Origin: "default",
			Live: field.Tag.Get("live") == "true", Doc: field.Tag.Get("doc"),
			Min: field.Tag.Get("min"), Max: field.Tag.Get("max"), OneOf: field.Tag.Get("oneof"),
		}
		if _, single := defaults[path]; single {
			s.Env = EnvName(path)
		}
		if origin, ok := l.origins[path]; ok {
			s.Origin = origin
		}
		settings = append(settings, s)
	}
	walkLists(reflect.ValueOf(l.Config).Elem(), "", add, func(path string, element reflect.Value) { walk(element, path+"[]", add) })
	return settings
}

// NeedRestart returns the paths at which next differs from the tree and that
// a reload can't apply. The lists of keys and streams are compared as a whole.
func (c *Config) NeedRestart(next *Config) []string {
	var paths []string
	compare(reflect.ValueOf(c).Elem(), reflect.ValueOf(next).Elem(), "", &paths)
	return paths
}

func compare(a, b reflect.Value, path string, paths *[]string) {
	for _, field := range fieldsOf(a.Type()) {
		if field.Tag.Get("live") == "true" {
			continue
		}
		av, bv, at := a.FieldByIndex(field.Index), b.FieldByIndex(field.Index), join(path, keyOf(field))
		if field.Type.Kind() == reflect.Struct {
			compare(av, bv, at, paths)
		} else if !reflect.DeepEqual(av.Interface(), bv.Interface()) {
			*paths = append(*paths, at)
		}
	}
}
