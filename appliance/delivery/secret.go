package delivery

import "fmt"

// Secret is a text in a sink's settings that is not shown.
type Secret string

// String returns ***, and nothing for no secret.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return "***"
}

// MarshalJSON writes what String returns.
func (s Secret) MarshalJSON() ([]byte, error) { return fmt.Appendf(nil, "%q", s.String()), nil }
