package sandbox

import (
	"fmt"
	"strings"
	"time"
)

const timeLayout = "2006-01-02T15:04:05.000Z"

// Time is a moment as the contract writes it: RFC 3339, UTC, milliseconds.
type Time struct{ time.Time }

// Now is the present moment, cut to the milliseconds that travel.
func Now() Time { return At(time.Now()) }

// At is t as the contract writes it.
func At(t time.Time) Time { return Time{t.UTC().Truncate(time.Millisecond)} }

// String writes the moment as it travels; such texts sort as the moments do.
func (t Time) String() string { return t.UTC().Format(timeLayout) }

// MarshalJSON writes the moment as a string.
func (t Time) MarshalJSON() ([]byte, error) { return []byte(`"` + t.String() + `"`), nil }

// UnmarshalJSON reads any RFC 3339 time.
func (t *Time) UnmarshalJSON(b []byte) error {
	parsed, err := time.Parse(time.RFC3339, strings.Trim(string(b), `"`))
	if err != nil {
		return fmt.Errorf("not an RFC 3339 time: %w", err)
	}
	*t = At(parsed)
	return nil
}
