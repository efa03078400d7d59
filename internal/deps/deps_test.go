package deps

import (
	"strings"
	"testing"
)

func TestWhatIsExact(t *testing.T) {
	for language, all := range map[string]map[string]bool{
		"python": {"six==1.16.0": true, "six===1.16.0": true, "a[b]==1": true, "six": false, "six>=1": false, "six==1.*": false, "six==1,<2": false, "six~=1.0": false},
		"node":   {"x@1.2.3": true, "@a/b@1.2.3": true, "x@v1.2.3-rc.1": true, "x@=1.2.3": true, "x": false, "@a/b": false, "x@1": false, "x@^1.2.3": false, "x@latest": false, "x@1.2.x": false},
		"go":     {"a.test/x@v1.2.3": true, "a.test/x@v0.0.0-20200101000000-abcdefabcdef": true, "a.test/x@v2.0.0+incompatible": true, "a.test/x": false, "a.test/x@v1": false, "a.test/x@latest": false, "a.test/x@main": false},
		"rust":   {"x@1.2.3": true, "x@=1.2.3": true, "x": false, "x@1.2": false, "x@^1.2.3": false, "x@*": false},
	} {
		for dep, want := range all {
			p := plan{recipe: recipes[language]}
			if got := p.exact([]string{dep}); got != want {
				t.Errorf("%s %s: exact %v", language, dep, got)
			}
		}
	}
	for dep, want := range map[string]string{"x@1.2.3": "x@=1.2.3", "x@1.2": "x@1.2", "x@=1.2.3": "x@=1.2.3", "x": "x", "x/a/b@1.2.3": "x@=1.2.3/a,b", "x/a": "x/a"} {
		if got := rust.spell(dep); got != want {
			t.Errorf("cargo gets %s for %s", got, dep)
		}
	}
}

func TestLastLines(t *testing.T) {
	for said, want := range map[string]string{
		"": "the installer ended without a word",
		"\x1b[31mred\x1b[0m \x07bell\nProgress 1%\rProgress 2%\rdone\r\n":                                      "red bell\ndone",
		"see http://127.0.0.1/pip/0/six/ and sparse+http://127.0.0.1:80/cargo/x, url: /link/abc/def/x.whl (x)": "see (index) and (index) url: (index) (x)",
		"bad \xff bytes\x00": "bad ? bytes",
	} {
		if got := LastLines(said); got != want {
			t.Errorf("%q gives %q, want %q", said, got, want)
		}
	}
	long := LastLines(strings.Repeat("\u00e4", 10_000) + strings.Repeat("line\n", 100))
	if len(long) > saidBytes || strings.Count(long, "\n") != saidLines-1 {
		t.Errorf("%d bytes, %d lines", len(long), strings.Count(long, "\n")+1)
	}
	if got := LastLines(strings.Repeat("\u00e4", 10_000)); len(got) > saidBytes || strings.Contains(got, "\ufffd") {
		t.Errorf("a character was cut: %d bytes", len(got))
	}
}

func TestPlacesForPackages(t *testing.T) {
	for path, want := range map[string]bool{
		"/usr/local/lib/python3.13/dist-packages": true, "/opt/venv/lib/python3.12/site-packages": true, pythonTree: true, "/root/.local/lib/x": false,
		"/": false, "/usr": false, "/etc/ld.so": false, "/proc/self/x": false, "/dev/shm/x": false, "/sys/x/y": false, "/usr/../proc/x": false, "/usr/lib\n/x": false, "usr/lib/x": false, "/run/x/y": false,
	} {
		if got := place.MatchString(path); got != want {
			t.Errorf("%q: %v", path, got)
		}
	}
}

func TestDebianReferences(t *testing.T) {
	for _, tc := range [][3]string{{"deb:trixie", "jq", "deb:trixie?include=jq"}, {"deb:trixie?include=python3", "jq", "deb:trixie?include=python3,jq"}} {
		if got := With(tc[0], tc[1]); got != tc[2] {
			t.Errorf("%s with %s is %s", tc[0], tc[1], got)
		}
	}
	apt, others := Split([]string{"apt:jq", "six", "apt:g++=4"})
	if len(apt) != 2 || apt[1] != "g++=4" || len(others) != 1 {
		t.Errorf("%q, %q", apt, others)
	}
}
