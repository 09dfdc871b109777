package config

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Bytes is a size. It is written with a unit (64KiB, 1MB, 2 GiB); a plain
// number is bytes.
type Bytes int64

var byteUnits = []struct {
	name string
	size int64
}{
	{"KiB", 1 << 10},
	{"MiB", 1 << 20},
	{"GiB", 1 << 30},
	{"TiB", 1 << 40},
	{"kB", 1e3},
	{"KB", 1e3},
	{"MB", 1e6},
	{"GB", 1e9},
	{"TB", 1e12},
	{"B", 1},
}

// ParseBytes reads a size such as 64KiB, 1.5GB or 4096. It refuses negative
// sizes, unknown units and sizes past 2^63-1.
func ParseBytes(s string) (Bytes, error) {
	text, unit := strings.TrimSpace(s), int64(1)
	for _, u := range byteUnits {
		if strings.HasSuffix(text, u.name) {
			text, unit = strings.TrimSpace(strings.TrimSuffix(text, u.name)), u.size
			break
		}
	}
	if n, err := strconv.ParseInt(text, 10, 64); err == nil {
		if n < 0 || n > math.MaxInt64/unit {
			return 0, fmt.Errorf("%q is out of range; expecting a size such as 64MiB", s)
		}
		return Bytes(n * unit), nil
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil || f < 0 || math.IsNaN(f) || unit == 1 {
		return 0, fmt.Errorf("%q is not a size; expecting a number with a unit, such as 512KiB or 64MiB", s)
	}
	if f*float64(unit) >= math.MaxInt64 {
		return 0, fmt.Errorf("%q is out of range; expecting a size such as 64MiB", s)
	}
	return Bytes(f * float64(unit)), nil
}

// String writes the size in the largest binary unit that divides it, which
// ParseBytes reads back to the same size.
func (b Bytes) String() string {
	for _, u := range []struct {
		name string
		size Bytes
	}{{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}} {
		if b != 0 && b%u.size == 0 {
			return strconv.FormatInt(int64(b/u.size), 10) + u.name
		}
	}
	return strconv.FormatInt(int64(b), 10) + "B"
}

// MarshalText is String, for JSON.
func (b Bytes) MarshalText() ([]byte, error) { return []byte(b.String()), nil }

// UnmarshalText is ParseBytes, for JSON.
func (b *Bytes) UnmarshalText(text []byte) error {
	n, err := ParseBytes(string(text))
	*b = n
	return err
}

// Secret is a value that prints as *** wherever it is printed, marshalled or
// logged. Reveal is the only way to it.
type Secret string

// Reveal returns the secret itself.
func (s Secret) Reveal() string { return string(s) }

// String returns ***, or nothing when there is no secret.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return "***"
}

// GoString is String: %#v shows no secret either.
func (s Secret) GoString() string { return `"` + s.String() + `"` }

// MarshalText is String, for JSON and slog.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// ParseDuration reads what time.ParseDuration reads, and d for days of 24
// hours: 36h, 7d, 1d12h. A number without a unit is refused.
func ParseDuration(s string) (time.Duration, error) {
	text := strings.TrimSpace(s)
	var days time.Duration
	if head, tail, ok := strings.Cut(text, "d"); ok {
		n, err := strconv.ParseInt(head, 10, 32)
		if err != nil || n < 0 || n > 100_000 {
			return 0, durationError(s)
		}
		days, text = time.Duration(n)*24*time.Hour, tail
		if text == "" {
			return days, nil
		}
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		return 0, durationError(s)
	}
	return days + d, nil
}

func durationError(s string) error {
	if _, err := strconv.ParseFloat(s, 64); err == nil {
		return fmt.Errorf("%q has no unit; expecting a duration such as %ss or %sms", s, s, s)
	}
	return fmt.Errorf("%q is not a duration; expecting a number with a unit, such as 500ms, 30s, 15m, 36h or 7d", s)
}

// FormatDuration writes d as ParseDuration reads it, in days when it is whole
// days, and without zero parts: 7d, 1h30m, 250ms.
func FormatDuration(d time.Duration) string {
	const day = 24 * time.Hour
	if d > 0 && d%day == 0 {
		return strconv.FormatInt(int64(d/day), 10) + "d"
	}
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// Settings is a part of the tree whose keys the configuration does not know:
// those of one kind of sink. It may hold secrets, so it prints its keys only.
type Settings json.RawMessage

// JSON returns the settings as a JSON object.
func (s Settings) JSON() json.RawMessage { return json.RawMessage(s) }

// String returns the names of the keys.
func (s Settings) String() string {
	var members map[string]json.RawMessage
	if json.Unmarshal(s, &members) != nil {
		return ""
	}
	return strings.Join(slices.Sorted(maps.Keys(members)), ", ")
}

// GoString is String: %#v shows no secret either.
func (s Settings) GoString() string { return "{" + s.String() + "}" }

// MarshalText is String, for JSON.
func (s Settings) MarshalText() ([]byte, error) { return []byte(s.String()), nil }
