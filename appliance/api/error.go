package api

import (
	"strconv"
	"unicode/utf8"
)

// WriteError answers with why in plain JSON, the form of the plain and admin
// protocols: {"error":{"code":"…","message":"…"}}. Whatever the body held before
// is dropped.
func WriteError(res Response, why *Refusal) {
	res.SetStatus(why.Status)
	res.SetHeader("Content-Type", "application/json")
	if why.Status == 401 {
		res.SetHeader("Www-Authenticate", `Bearer realm="weir", Basic realm="weir"`)
	}
	body := res.Body()
	*body = append((*body)[:0], `{"error":{"code":`...)
	*body = appendQuoted(*body, why.Code)
	*body = append(*body, `,"message":`...)
	*body = appendQuoted(*body, why.Message)
	*body = append(*body, "}}\n"...)
}

// appendQuoted appends s as a JSON string. Go's quoting is JSON's for printable
// text; what differs (control characters, invalid UTF-8) is written as \u escapes.
func appendQuoted(dst []byte, s string) []byte {
	dst = append(dst, '"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			dst = append(dst, '\\', byte(r))
		case r < 0x20 || r == 0x7f:
			dst = append(dst, `\u00`...)
			dst = append(dst, strconv.FormatInt(int64(r)+0x100, 16)[1:]...)
		default:
			dst = utf8.AppendRune(dst, r)
		}
	}
	return append(dst, '"')
}
