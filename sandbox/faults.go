package sandbox

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Faults gathers what is wrong with one request, so that a client hears of every bad field at once.
type Faults []Detail

// Add notes one bad field. A field that already has a fault, or lies within one that has, keeps the first: what a wrong
// type leads to is no second fault.
func (f *Faults) Add(field, reason string, args ...any) {
	if len(args) > 0 {
		reason = fmt.Sprintf(reason, args...)
	}
	if !f.Has(field) {
		*f = append(*f, Detail{Field: field, Reason: reason})
	}
}

// Has says whether the field, or one that it lies within, has a fault.
func (f Faults) Has(field string) bool {
	return slices.ContainsFunc(f, func(d Detail) bool {
		rest, within := strings.CutPrefix(field, d.Field)
		return within && (rest == "" || rest[0] == '.' || rest[0] == '[')
	})
}

// Err is nil without faults, else one Error of the code that lists them all.
func (f Faults) Err(code Code) error {
	if len(f) == 0 {
		return nil
	}
	said := make([]string, len(f))
	for i, d := range f {
		said[i] = d.Field + ": " + d.Reason
	}
	e := Errorf(code, nil, "%s", strings.Join(said, "; "))
	e.Details = f
	return e
}

// Field spells the name of a field within another, as the contract does: a.b, or a["odd name"].
func Field(path, name string) string {
	plain := name != ""
	for _, c := range name {
		plain = plain && (c == '_' || c == '-' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z')
	}
	switch {
	case !plain && path != "":
		return path + "[" + strconv.Quote(name) + "]"
	case path == "":
		return name
	}
	return path + "." + name
}
