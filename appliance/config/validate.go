package config

import (
	"fmt"
	"net"
	"reflect"
	"regexp"
	"strconv"
)

var (
	streamName  = regexp.MustCompile(`^[a-zA-Z0-9_.-]{1,128}$`)
	accessKeyID = regexp.MustCompile(`^[a-zA-Z0-9]{16,128}$`)
)

// Validate returns every problem of the tree, with paths, and none for a tree
// that runs. It looks at values only: whether a file is there or a port is free
// is found out by whoever uses it.
func (c *Config) Validate() Problems {
	v := &validator{}
	walk(reflect.ValueOf(c).Elem(), "", func(path string, field reflect.StructField, value reflect.Value) {
		if err := bounds(field, value); err != nil {
			v.add(path, err.Error())
		}
	})
	c.Listen.validate(v)
	c.validateKeys(v)
	c.validateStreams(v)
	if c.Wasm.Signatures == "require" && len(c.Wasm.TrustedKeys) == 0 {
		v.add("wasm.trusted_keys", "empty; expecting at least one key when wasm.signatures is require")
	}
	return v.problems
}

type validator struct{ problems Problems }

func (v *validator) add(path, text string) {
	v.problems = append(v.problems, Problem{Path: path, Text: text})
}

// secret refuses one that can be guessed. It says how long it is, never what it is.
func (v *validator) secret(path string, s Secret) {
	switch n := len(s); {
	case n == 0:
		v.add(path, "empty; expecting at least 16 characters")
	case n == 1:
		v.add(path, "1 character; expecting at least 16")
	case n < 16:
		v.add(path, fmt.Sprintf("%d characters; expecting at least 16", n))
	}
}

func (l *Listen) validate(v *validator) {
	if _, port, err := net.SplitHostPort(l.Address); err != nil {
		v.add("listen.address", fmt.Sprintf("%q is not an address; expecting host:port, such as 127.0.0.1:4567 or :4567", l.Address))
	} else if n, err := strconv.Atoi(port); err != nil || n < 0 || n > 65535 {
		v.add("listen.address", fmt.Sprintf("%q has no port number; expecting 1 to 65535, or 0 for a free one", l.Address))
	}
	if (l.TLSCert == "") != (l.TLSKey == "") {
		path, other := "listen.tls_key", "listen.tls_cert"
		if l.TLSCert == "" {
			path, other = other, path
		}
		v.add(path, "empty; expecting a file, as "+other+" is set")
	}
	if l.BodyMemory < l.MaxBodyBytes {
		v.add("listen.body_memory", fmt.Sprintf("%s is below listen.max_body_bytes, %s: the largest body would never be admitted", l.BodyMemory, l.MaxBodyBytes))
	}
}

func (c *Config) validateKeys(v *validator) {
	seen := map[string]int{}
	for i, k := range c.Auth.Keys {
		at := fmt.Sprintf("auth.keys[%d].", i)
		if !accessKeyID.MatchString(k.AccessKeyID) {
			v.add(at+"access_key_id", fmt.Sprintf("%q; expecting 16 to 128 letters and digits", k.AccessKeyID))
		} else if j, ok := seen[k.AccessKeyID]; ok {
			v.add(at+"access_key_id", fmt.Sprintf("%s is the id of auth.keys[%d] too; expecting each id once", k.AccessKeyID, j))
		}
		seen[k.AccessKeyID] = i
		v.secret(at+"secret_access_key", k.SecretAccessKey)
	}
	for i, k := range c.Auth.Tokens {
		v.secret(fmt.Sprintf("auth.tokens[%d].token", i), k.Token)
		if k.Name == "" {
			v.add(fmt.Sprintf("auth.tokens[%d].name", i), "empty; expecting a name for the logs")
		}
	}
	marks := map[[2]string]int{}
	for i := range c.Auth.Certificates {
		at := fmt.Sprintf("auth.certificates[%d]", i)
		field, value, err := c.Auth.Certificates[i].Mark()
		if err != nil {
			v.add(at, err.Error())
			continue
		}
		if j, ok := marks[[2]string{field, value}]; ok {
			v.add(at+"."+field, fmt.Sprintf("the same as that of auth.certificates[%d]; expecting each once", j))
		}
		marks[[2]string{field, value}] = i
	}
	if len(c.Auth.Certificates) > 0 && c.Listen.ClientCA == "" {
		v.add("listen.client_ca", "empty; expecting the authority of the certificates in auth.certificates")
	}
}

func (c *Config) validateStreams(v *validator) {
	seen := map[string]int{}
	for i, s := range c.Streams {
		at := fmt.Sprintf("streams[%d].name", i)
		if !streamName.MatchString(s.Name) {
			v.add(at, fmt.Sprintf("%q; expecting 1 to 128 of a-z A-Z 0-9 _ . -", s.Name))
		} else if j, ok := seen[s.Name]; ok {
			v.add(at, fmt.Sprintf("%s is the name of streams[%d] too; expecting each name once", s.Name, j))
		}
		seen[s.Name] = i
	}
}
