package image

import (
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"

	"outpost.run/outpost/sandbox"
)

// suites are the Debian releases whose package effects this package knows how to make.
var suites = []string{"bookworm", "trixie"}

// packageName is Debian's rule for package names (policy 5.6.1).
var packageName = regexp.MustCompile(`^[a-z0-9][a-z0-9+.-]+$`)

// repositoryName is how a registry may name what it has: nothing in it that a registry or a web server before it takes for
// another place. Source: OCI distribution specification, Pulling manifests.
var repositoryName = regexp.MustCompile(`^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*$`)

// form is where an image comes from.
type form string

const (
	packages      form = "deb"            // made of Debian packages
	registryForm  form = ""               // of a registry: the only form without a word before it
	layout        form = "oci"            // a folder in the layout of the OCI image specification
	layoutArchive form = "oci-archive"    // a tar of such a folder
	dockerArchive form = "docker-archive" // what docker save writes
	folder        form = "dir"            // a root file system
)

// reference is a parsed image reference.
type reference struct {
	form    form
	suite   string         // of packages
	include []string       // sorted, each once; empty for the base alone
	remote  name.Reference // of a registry
	path    string         // of the local forms; absolute
}

// parseReference reads a reference of any form. Error: ImageNotFound, naming what is wrong.
func parseReference(s string) (reference, error) {
	word, rest, ok := strings.Cut(s, ":")
	switch f := form(word); {
	case !ok:
	case f == packages:
		return parsePackages(s, rest)
	case f == layout, f == layoutArchive, f == dockerArchive, f == folder:
		if !path.IsAbs(rest) || len(rest) > maxPath || strings.ContainsRune(rest, 0) {
			return reference{}, sandbox.Errorf(sandbox.ImageNotFound, nil, "image %q: after %s: comes an absolute path", s, f)
		}
		return reference{form: f, path: path.Clean(rest)}, nil
	}
	remote, err := name.ParseReference(s)
	if err != nil {
		return reference{}, sandbox.Errorf(sandbox.ImageNotFound, err,
			"image %q is of no known form; known are REPOSITORY[:TAG], REPOSITORY@sha256:…, deb:SUITE?include=a,b, oci:DIR, oci-archive:FILE, docker-archive:FILE and dir:PATH", s)
	}
	if !repositoryName.MatchString(remote.Context().RepositoryStr()) {
		return reference{}, sandbox.Errorf(sandbox.ImageNotFound, nil,
			"image %q: a repository is words of a-z and 0-9, joined by one of . _ __ - and parted by one /", s)
	}
	return reference{remote: remote}, nil
}

// parsePackages reads deb:SUITE?include=a,b.
func parsePackages(s, rest string) (reference, error) {
	suite, query, hasQuery := strings.Cut(rest, "?")
	if !slices.Contains(suites, suite) {
		return reference{}, sandbox.Errorf(sandbox.ImageNotFound, nil,
			"image %q: unknown suite %q; known are %s", s, suite, strings.Join(suites, ", "))
	}
	r := reference{form: packages, suite: suite}
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
	switch {
	case r.form == registryForm:
		return r.remote.Name()
	case r.form != packages:
		return string(r.form) + ":" + r.path
	case len(r.include) == 0:
		return "deb:" + r.suite
	}
	return "deb:" + r.suite + "?include=" + strings.Join(r.include, ",")
}

// Canonical is the one spelling of a reference, as List has it; what is none stays as it is.
func Canonical(ref string) string {
	r, err := parseReference(ref)
	if err != nil {
		return ref
	}
	return r.String()
}
