// Package dn reads distinguished names, so that a certificate's subject can be
// compared with what an operator wrote down.
//
// It owns their text form (RFC 4514, and what RFC 2253 wrote besides). It never
// verifies a certificate.
package dn

import (
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Name is a distinguished name in a form of its own: two names are the same if
// their Names are equal. Types are compared by what they stand for, values byte by
// byte, and the order counts, except within a part joined by +.
type Name string

// types are the attributes that have a short name, from RFC 4514, section 3, and
// those that OpenSSL prints besides.
var types = map[string]string{
	"CN": "2.5.4.3", "SN": "2.5.4.4", "SERIALNUMBER": "2.5.4.5", "C": "2.5.4.6", "L": "2.5.4.7", "ST": "2.5.4.8", "STREET": "2.5.4.9",
	"O": "2.5.4.10", "OU": "2.5.4.11", "TITLE": "2.5.4.12", "POSTALCODE": "2.5.4.17", "GN": "2.5.4.42",
	"DC": "0.9.2342.19200300.100.1.25", "UID": "0.9.2342.19200300.100.1.1",
	"EMAILADDRESS": "1.2.840.113549.1.9.1", "E": "1.2.840.113549.1.9.1",
}

// attribute is a type, as numbers, and a value.
type attribute struct{ oid, value string }

// nameOf puts parts, the first of the text form first, into one comparable value.
func nameOf(parts [][]attribute) Name {
	var b []byte
	for _, part := range parts {
		slices.SortFunc(part, func(a, b attribute) int { return strings.Compare(a.oid+"="+a.value, b.oid+"="+b.value) })
		for i, a := range part {
			if i > 0 {
				b = append(b, '+')
			}
			b = append(b, a.oid...)
			b = append(b, '=')
			b = strconv.AppendQuote(b, a.value)
		}
		b = append(b, ',')
	}
	return Name(b)
}

// Of returns the name that a certificate has as its RawSubject.
func Of(raw []byte) (Name, error) {
	var seq pkix.RDNSequence
	if rest, err := asn1.Unmarshal(raw, &seq); err != nil {
		return "", fmt.Errorf("read subject: %w", err)
	} else if len(rest) > 0 {
		return "", fmt.Errorf("read subject: %d bytes too many", len(rest))
	}
	parts := make([][]attribute, 0, len(seq))
	for _, set := range slices.Backward(seq) {
		part := make([]attribute, 0, len(set))
		for _, a := range set {
			value, ok := a.Value.(string)
			if !ok {
				der, err := asn1.Marshal(a.Value)
				if err != nil {
					return "", fmt.Errorf("read subject: %s: %w", a.Type, err)
				}
				value = "#" + hex.EncodeToString(der)
			}
			part = append(part, attribute{a.Type.String(), value})
		}
		parts = append(parts, part)
	}
	return nameOf(parts), nil
}

// Parse reads a name such as CN=device-17,OU=Sensors,O=Acme\, Inc.,C=DE, the last part
// of the certificate's subject first, as openssl x509 -subject -nameopt RFC2253 prints it.
func Parse(s string) (Name, error) {
	var parts [][]attribute
	var part []attribute
	for rest := s; ; {
		a, left, err := parseAttribute(rest)
		if err != nil {
			return "", err
		}
		part = append(part, a)
		sep := byte(',')
		if left != "" {
			sep = left[0]
		}
		if sep != '+' {
			parts, part = append(parts, part), nil
		}
		if left == "" {
			return nameOf(parts), nil
		}
		rest = left[1:]
	}
}

// parseAttribute reads type=value up to the next separator, which it leaves.
func parseAttribute(s string) (a attribute, rest string, err error) {
	name, rest, ok := strings.Cut(s, "=")
	name = strings.TrimSpace(name)
	if !ok {
		return a, "", fmt.Errorf("%q; expecting type=value", s)
	}
	if a.oid, err = oidOf(name); err != nil {
		return a, "", err
	}
	rest = strings.TrimLeft(rest, " ")
	switch {
	case strings.HasPrefix(rest, "#"):
		a.value, rest, err = hexValue(rest[1:])
	case strings.HasPrefix(rest, `"`):
		a.value, rest, err = quotedValue(rest[1:])
	default:
		a.value, rest, err = plainValue(rest)
	}
	if err == nil && a.value == "" {
		err = fmt.Errorf("%s is empty; expecting a value", name)
	}
	return a, rest, err
}

func oidOf(name string) (string, error) {
	upper := strings.ToUpper(name)
	if oid, ok := types[upper]; ok {
		return oid, nil
	}
	oid := strings.TrimPrefix(upper, "OID.")
	numbers := strings.Split(oid, ".")
	for _, n := range numbers {
		if v, err := strconv.ParseUint(n, 10, 31); err != nil || strconv.FormatUint(v, 10) != n || len(numbers) < 2 {
			return "", fmt.Errorf("%q; expecting CN, OU, O, DC, UID, C, L, ST, emailAddress or another type of RFC 4514, or its number", name)
		}
	}
	return oid, nil
}

func isSeparator(c byte) bool { return c == ',' || c == ';' || c == '+' }

// hexValue reads the hexadecimal form of a value's encoding.
func hexValue(s string) (value, rest string, err error) {
	end := strings.IndexFunc(s, func(r rune) bool { return r < 128 && isSeparator(byte(r)) })
	if end < 0 {
		end = len(s)
	}
	der, err := hex.DecodeString(strings.TrimSpace(s[:end]))
	if err != nil {
		return "", "", fmt.Errorf("#%s: %w", s[:end], err)
	}
	var v any
	if left, err := asn1.Unmarshal(der, &v); err != nil || len(left) > 0 {
		return "", "", fmt.Errorf("#%s; expecting the encoding of one value", s[:end])
	}
	if text, ok := v.(string); ok {
		return text, s[end:], nil
	}
	return "#" + hex.EncodeToString(der), s[end:], nil
}

// escaped reads what comes after a backslash.
func escaped(s string) (c byte, n int, err error) {
	if len(s) >= 2 {
		if v, err := strconv.ParseUint(s[:2], 16, 8); err == nil {
			return byte(v), 2, nil
		}
	}
	if s == "" || strings.IndexByte(`,;+"\<>=# `, s[0]) < 0 {
		return 0, 0, fmt.Errorf(`\%.2s; expecting one of , ; + " \ < > = # or a space after a backslash, or two hexadecimal digits`, s)
	}
	return s[0], 1, nil
}

// quotedValue is the form of RFC 2253.
func quotedValue(s string) (value, rest string, err error) {
	var b []byte
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '"':
			rest = strings.TrimLeft(s[i+1:], " ")
			if rest != "" && !isSeparator(rest[0]) {
				return "", "", fmt.Errorf("%q after a quoted value; expecting a comma", rest)
			}
			return string(b), rest, nil
		case '\\':
			c, n, err := escaped(s[i+1:])
			if err != nil {
				return "", "", err
			}
			b = append(b, c)
			i += n
		default:
			b = append(b, s[i])
		}
	}
	return "", "", fmt.Errorf("%q; expecting a closing quote", s)
}

func plainValue(s string) (value, rest string, err error) {
	var b []byte
	keep := 0 // length up to which a space at the end was escaped
	i := 0
	for ; i < len(s) && !isSeparator(s[i]); i++ {
		switch s[i] {
		case '\\':
			c, n, err := escaped(s[i+1:])
			if err != nil {
				return "", "", err
			}
			b = append(b, c)
			keep = len(b)
			i += n
		case '"':
			return "", "", fmt.Errorf(`%q; expecting \" for a quote within a value`, s)
		default:
			b = append(b, s[i])
		}
	}
	for len(b) > keep && b[len(b)-1] == ' ' {
		b = b[:len(b)-1]
	}
	return string(b), s[i:], nil
}
