package delivery

import (
	"encoding/json"
	"fmt"
	"time"
)

// Duration is a time.Duration that is written as text, "5m0s". A bare number
// is read as seconds.
type Duration time.Duration

// String writes it as time.Duration does.
func (d Duration) String() string { return time.Duration(d).String() }

// MarshalJSON writes a text.
func (d Duration) MarshalJSON() ([]byte, error) { return json.Marshal(d.String()) }

// UnmarshalJSON reads a text like 90s or 1h30m, or a number of seconds.
func (d *Duration) UnmarshalJSON(raw []byte) error {
	var text string
	if json.Unmarshal(raw, &text) == nil {
		v, err := time.ParseDuration(text)
		if err != nil {
			return fmt.Errorf("%q is not a duration like 30s or 5m", text)
		}
		*d = Duration(v)
		return nil
	}
	var seconds float64
	if err := json.Unmarshal(raw, &seconds); err != nil || seconds > 1e9 || seconds < -1e9 {
		return fmt.Errorf("%s is not a duration like \"30s\" or a number of seconds", raw)
	}
	*d = Duration(seconds * float64(time.Second))
	return nil
}
