package policy

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/mod/module"

	"outpost.run/outpost/sandbox"
)

const (
	maxDeps     = 64
	maxDepBytes = 256
)

// The spellings of a dependency, one a manager. None begins with what an option, a path or an address begins with, and
// none holds white space, a control character or a word of the shell.
var (
	// pip: a name, extras, comparisons. Source: PEP 508 and PEP 440, without markers and direct references.
	pipDep = regexp.MustCompile(`^[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?(?:\[[A-Za-z0-9._-]+(?:,[A-Za-z0-9._-]+)*\])?` +
		`(?:(?:===|==|~=|!=|<=|>=|<|>)[A-Za-z0-9][A-Za-z0-9._*+!-]*(?:,(?:==|~=|!=|<=|>=|<|>)[A-Za-z0-9][A-Za-z0-9._*+!-]*)*)?$`)
	// npm: a name, perhaps in a scope, and a version, a simple range or a tag. Source: npm-package-arg's registry forms.
	npmDep = regexp.MustCompile(`^(?:@[A-Za-z0-9][A-Za-z0-9._~-]*/)?[A-Za-z0-9][A-Za-z0-9._~-]*(?:@(?:[~^=]|>=|<=|>|<)?[A-Za-z0-9*][A-Za-z0-9.*+-]*)?$`)
	// What npm takes for a file in spite of that.
	npmFile   = regexp.MustCompile(`(?i)\.(?:tgz|tar|tar\.gz)$`)
	goVersion = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._+-]*$`)
	// cargo: a name, features as its --features has them, a version.
	cargoDep = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_-]{0,63}(?:/[A-Za-z0-9_][A-Za-z0-9_+.-]*)*(?:@(?:[~^=]|>=|<=|>|<)?[0-9*][A-Za-z0-9.*+-]*)?$`)
	// apt takes a trailing minus for a removal.
	aptDep     = regexp.MustCompile(`^apt:[a-z0-9][a-z0-9+.-]*[a-z0-9+.](?:=[A-Za-z0-9][A-Za-z0-9.+:~-]*)?$`)
	depManager = map[string]struct{ name, example string }{
		"python": {"pip", "requests==2.32.3"}, "node": {"npm", "lodash@4.17.21"}, "go": {"Go", "example.com/module@v1.2.3"},
		"rust": {"cargo", "rand@0.8.5"},
	}
)

// checkDeps wants names of packages with a version in their manager's own spelling, and gives each once. language is that
// of the program.
func checkDeps(deps []string, language string, faults *sandbox.Faults) []string {
	if len(deps) > maxDeps {
		faults.Add("deps", "has more than %d entries", maxDeps)
		return nil
	}
	var all []string
	for i, dep := range deps {
		at := fmt.Sprintf("deps[%d]", i)
		if faults.Has(at) {
			continue // no string: said already
		}
		if why := depFault(dep, language); why != "" {
			faults.Add(at, "%s", why)
		} else if !slices.Contains(all, dep) {
			all = append(all, dep)
		}
	}
	return all
}

// depFault says what is wrong with a dependency, "" for nothing.
func depFault(dep, language string) string {
	const only = "; options, paths and addresses are not taken"
	if len(dep) > maxDepBytes {
		return fmt.Sprintf("is longer than %d bytes", maxDepBytes)
	}
	if strings.HasPrefix(dep, "apt:") {
		if !aptDep.MatchString(dep) {
			return "must be a Debian package, for example apt:jq" + only
		}
		return ""
	}
	m, managed := depManager[language]
	if !managed {
		return fmt.Sprintf("must be a Debian package, for example apt:jq: %s programs have no other packages", language)
	}
	if !isDep(dep, language) {
		return fmt.Sprintf("must be a package in %s's spelling, for example %s, or a Debian package as apt:jq%s", m.name, m.example, only)
	}
	return ""
}

func isDep(dep, language string) bool {
	switch language {
	case "python":
		return pipDep.MatchString(dep)
	case "node":
		return npmDep.MatchString(dep) && !npmFile.MatchString(dep)
	case "rust":
		return cargoDep.MatchString(dep)
	}
	path, version, hasVersion := strings.Cut(dep, "@")
	return module.CheckPath(path) == nil && (!hasVersion || goVersion.MatchString(version) && version != "none")
}
