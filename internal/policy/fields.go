package policy

import (
	"fmt"
	"path"
	"regexp"
	"strings"
	"unicode"

	"outpost.run/outpost/sandbox"
)

const (
	maxEnvPairs  = 256
	maxEnvBytes  = 64 << 10
	maxPathBytes = 4096
	maxLabels    = 64
)

var envName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// checkEnv wants names that a shell could set, each once, and values without NUL.
func checkEnv(field string, env [][2]string, faults *sandbox.Faults) {
	if len(env) > maxEnvPairs {
		faults.Add(field, "has more than %d pairs", maxEnvPairs)
		return
	}
	bytes, first := 0, map[string]int{}
	for i, pair := range env {
		at := fmt.Sprintf("%s[%d]", field, i)
		if faults.Has(at) || faults.Has(at+"[0]") || faults.Has(at+"[1]") {
			continue // no string: said already
		}
		bytes += len(pair[0]) + len(pair[1])
		if !envName.MatchString(pair[0]) {
			faults.Add(at+"[0]", "must be a name of letters, digits and underscores that starts with no digit")
		} else if j, twice := first[pair[0]]; twice {
			faults.Add(at+"[0]", "repeats the name of %s[%d]", field, j)
		} else {
			first[pair[0]] = i
		}
		noNUL(at+"[1]", pair[1], faults)
	}
	if bytes > maxEnvBytes {
		faults.Add(field, "has more than %d bytes of names and values", maxEnvBytes)
	}
}

func noNUL(field, text string, faults *sandbox.Faults) {
	if strings.ContainsRune(text, 0) {
		faults.Add(field, "must not contain NUL")
	}
}

// checkDir wants an absolute path without detours, and gives it without a slash at its end.
func checkDir(field, dir string, faults *sandbox.Faults) string {
	switch {
	case !strings.HasPrefix(dir, "/"):
		faults.Add(field, "must be an absolute path")
	case len(dir) > maxPathBytes:
		faults.Add(field, "is longer than %d bytes", maxPathBytes)
	case path.Clean(dir) != dir && path.Clean(dir)+"/" != dir:
		faults.Add(field, "must be written without ., .. and empty parts")
	}
	noNUL(field, dir, faults)
	return path.Clean(dir)
}

// checkPath wants something that can name a file.
func checkPath(field, name string, faults *sandbox.Faults) {
	switch {
	case name == "":
		faults.Add(field, "must not be empty")
	case len(name) > maxPathBytes:
		faults.Add(field, "is longer than %d bytes", maxPathBytes)
	}
	noNUL(field, name, faults)
}

var labelKey = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._/-]{0,62}$`)

func checkNameAndLabels(name *string, labels map[string]string, faults *sandbox.Faults) {
	if name != nil && strings.ContainsFunc(*name, unicode.IsControl) {
		faults.Add("name", "must not contain control characters")
	}
	if len(labels) > maxLabels {
		faults.Add("labels", "has more than %d entries", maxLabels)
		return
	}
	for key, value := range labels {
		switch at := sandbox.Field("labels", key); {
		case !labelKey.MatchString(key):
			faults.Add(at, "the name must be 1 to 63 letters, digits and ._/- that start with a letter or digit")
		case len(value) > 256:
			faults.Add(at, "is longer than 256 bytes")
		case strings.ContainsFunc(value, unicode.IsControl):
			faults.Add(at, "must not contain control characters")
		}
	}
}
