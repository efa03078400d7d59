package image

import (
	"bufio"
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// mirrors are where this host's own apt gets Debian from.
type mirrors struct {
	main, security string
}

// hostMirrors reads the host's apt sources below etc (/etc/apt) and finds the Debian archive and its security archive
// by the suites they are used for. Empty where the host names none. Source: sources.list(5).
func hostMirrors(etc string) mirrors {
	var m mirrors
	note := func(uri string, wanted []string, components []string) {
		if !slices.Contains(components, "main") {
			return
		}
		for _, s := range wanted {
			base, kind, _ := strings.Cut(s, "-")
			if !slices.Contains(releases, base) {
				continue
			}
			switch {
			case kind == "security" && m.security == "":
				m.security = uri
			case (kind == "" || kind == "updates") && m.main == "":
				m.main = uri
			}
		}
	}
	lists, _ := filepath.Glob(filepath.Join(etc, "sources.list.d", "*.list"))
	for _, name := range append([]string{filepath.Join(etc, "sources.list")}, lists...) {
		b, _ := os.ReadFile(name)
		for line := range strings.Lines(string(b)) {
			uri, suite, components, ok := oneLine(line)
			if ok {
				note(uri, []string{suite}, components)
			}
		}
	}
	deb822, _ := filepath.Glob(filepath.Join(etc, "sources.list.d", "*.sources"))
	for _, name := range deb822 {
		b, _ := os.ReadFile(name)
		for _, stanza := range stanzas(b) {
			if !slices.Contains(strings.Fields(stanza["types"]), "deb") || stanza["enabled"] == "no" {
				continue
			}
			for _, uri := range strings.Fields(stanza["uris"]) {
				note(uri, strings.Fields(stanza["suites"]), strings.Fields(stanza["components"]))
			}
		}
	}
	return m
}

// releases are the names under which hosts know Debian's archive; of derivatives with their own archive there is none.
var releases = []string{"oldoldstable", "oldstable", "stable", "testing", "unstable", "sid",
	"buster", "bullseye", "bookworm", "trixie", "forky", "duke"}

// oneLine reads deb [options] uri suite component…
func oneLine(line string) (uri, suite string, components []string, ok bool) {
	line, _, _ = strings.Cut(line, "#")
	rest, ok := strings.CutPrefix(strings.TrimSpace(line), "deb ")
	if !ok {
		return "", "", nil, false
	}
	rest = strings.TrimSpace(rest)
	if strings.HasPrefix(rest, "[") {
		if _, rest, ok = strings.Cut(rest, "]"); !ok {
			return "", "", nil, false
		}
	}
	f := strings.Fields(rest)
	if len(f) < 3 {
		return "", "", nil, false
	}
	return f[0], f[1], f[2:], true
}

// stanzas reads deb822 text: field names in lower case, continuation lines joined by newlines. Source: deb822(5).
func stanzas(b []byte) []map[string]string {
	var all []map[string]string
	var cur map[string]string
	var field string
	sc := bufio.NewScanner(bytes.NewReader(b))
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		line := sc.Text()
		switch {
		case strings.TrimSpace(line) == "":
			cur = nil
		case strings.HasPrefix(line, "#"):
		case line[0] == ' ' || line[0] == '\t':
			if cur != nil {
				cur[field] += "\n" + strings.TrimSpace(line)
			}
		default:
			name, value, ok := strings.Cut(line, ":")
			if !ok {
				continue
			}
			if cur == nil {
				cur = map[string]string{}
				all = append(all, cur)
			}
			field = strings.ToLower(name)
			cur[field] = strings.TrimSpace(value)
		}
	}
	return all
}
