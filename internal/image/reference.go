package image

import (
	"regexp"
	"slices"
	"strings"

	"outpost.run/outpost/sandbox"
)

// suites are the Debian releases whose package effects this package knows how to make.
var suites = []string{"bookworm", "trixie"}

// packageName is Debian's rule for package names (policy 5.6.1).
var packageName = regexp.MustCompile(`^[a-z0-9][a-z0-9+.-]+$`)

// reference is a parsed deb:SUITE?include=a,b.
type reference struct {
	suite   string
	include []string // sorted, each once; empty for the base alone
}

// parseReference reads deb:SUITE?include=a,b. Error: ImageNotFound, naming what is wrong.
func parseReference(s string) (reference, error) {
	rest, ok := strings.CutPrefix(s, "deb:")
	if !ok {
		return reference{}, sandbox.Errorf(sandbox.ImageNotFound, nil,
			"image %q is of no known form; known is deb:SUITE?include=a,b", s)
	}
	suite, query, hasQuery := strings.Cut(rest, "?")
	if !slices.Contains(suites, suite) {
		return reference{}, sandbox.Errorf(sandbox.ImageNotFound, nil,
			"image %q: unknown suite %q; known are %s", s, suite, strings.Join(suites, ", "))
	}
	r := reference{suite: suite}
	if !hasQuery {
		return r, nil
	}
	list, ok := strings.CutPrefix(query, "include=")
	if !ok {
		return reference{}, sandbox.Errorf(sandbox.ImageNotFound, nil,
			"image %q: after ? comes include= and package names parted by commas", s)
	}
	for _, name := range strings.Split(list, ",") {
		if !packageName.MatchString(name) {
			return reference{}, sandbox.Errorf(sandbox.ImageNotFound, nil, "image %q: %q is no package name", s, name)
		}
		r.include = append(r.include, name)
	}
	slices.Sort(r.include)
	r.include = slices.Compact(r.include)
	return r, nil
}

// String is the one spelling of the reference, under which the store keeps it.
func (r reference) String() string {
	if len(r.include) == 0 {
		return "deb:" + r.suite
	}
	return "deb:" + r.suite + "?include=" + strings.Join(r.include, ",")
}
