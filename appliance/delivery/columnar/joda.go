package columnar

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// timeFormat is one of the Hive reader's timestamp formats.
type timeFormat struct {
	layout string // Go's, or "millis"
}

func (f timeFormat) parse(text string) (time.Time, bool) {
	if f.layout == "millis" {
		const most = 1e15 // a Parquet timestamp counts microseconds, and has room for no more
		ms, err := strconv.ParseInt(text, 10, 64)
		return time.UnixMilli(ms).UTC(), err == nil && ms >= -most && ms <= most
	}
	at, err := time.Parse(f.layout, text)
	return at.UTC(), err == nil
}

// jodaWords are the runs of Joda letters that have a Go layout.
var jodaWords = map[string]string{
	"yyyy": "2006", "yy": "06", "MMMM": "January", "MMM": "Jan", "MM": "01", "M": "1", "dd": "02", "d": "2",
	"DDD": "002", "EEEE": "Monday", "EEE": "Mon", "E": "Mon", "HH": "15", "H": "15", "hh": "03", "h": "3",
	"mm": "04", "m": "4", "ss": "05", "s": "5", "a": "PM", "Z": "-0700", "ZZ": "-07:00", "z": "MST",
	"S": "0", "SS": "00", "SSS": "000", "SSSSSS": "000000", "SSSSSSSSS": "000000000",
}

// jodaLayout translates a Joda pattern to a Go layout.
func jodaLayout(pattern string) (timeFormat, error) {
	if pattern == "millis" {
		return timeFormat{layout: "millis"}, nil
	}
	var b strings.Builder
	for i := 0; i < len(pattern); {
		c := pattern[i]
		switch {
		case c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z':
			n := 1
			for i+n < len(pattern) && pattern[i+n] == c {
				n++
			}
			word, ok := jodaWords[pattern[i:i+n]]
			if !ok {
				return timeFormat{}, fmt.Errorf("%q is not supported", pattern[i:i+n])
			}
			b.WriteString(word)
			i += n
		case c == '\'':
			end := strings.IndexByte(pattern[i+1:], '\'')
			if end < 0 {
				return timeFormat{}, fmt.Errorf("quote at %d is not closed", i)
			}
			text := pattern[i+1 : i+1+end]
			if strings.ContainsAny(text, "0123456789") {
				return timeFormat{}, fmt.Errorf("digits in quoted text %q are not supported", text)
			}
			b.WriteString(text)
			i += end + 2
		case c >= '0' && c <= '9':
			return timeFormat{}, fmt.Errorf("digit %q is not supported", c)
		default:
			b.WriteByte(c)
			i++
		}
	}
	return timeFormat{layout: b.String()}, nil
}
