package image

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"outpost.run/outpost/sandbox"
)

func TestParseReference(t *testing.T) {
	for _, tc := range []struct{ name, in, want string }{
		{"the base alone", "deb:trixie", "deb:trixie"},
		{"includes are sorted, each once", "deb:trixie?include=nodejs,jq,nodejs", "deb:trixie?include=jq,nodejs"},
		{"another suite", "deb:bookworm", "deb:bookworm"},
		{"unknown suite", "deb:woody", ""},
		{"a registry's", "registry.example:5000/a/b", "registry.example:5000/a/b:latest"},
		{"a registry's by digest", "registry.example/a@sha256:" + strings.Repeat("0", 64), "registry.example/a@sha256:" + strings.Repeat("0", 64)},
		{"a registry's of a wrong name", "registry.example/A B", ""},
		{"a registry's in another's place", "registry.example/team-a/../team-b/secret:1", ""},
		{"a registry's at the same place", "registry.example/team-a/./x", ""},
		{"a registry's with an empty part", "registry.example/team-a//x", ""},
		{"a registry's that begins with a slash", "registry.example//x", ""},
		{"a registry's that ends with a slash", "registry.example/x/", ""},
		{"a registry's with three underlines", "registry.example/a___b", ""},
		{"a registry's of all that joins", "registry.example/a.b_c__d---e/9:T", "registry.example/a.b_c__d---e/9:T"},
		{"a folder", "dir:/srv/x/../root", "dir:/srv/root"},
		{"a layout", "oci:/srv/a", "oci:/srv/a"},
		{"a path that is not absolute", "oci-archive:a.tar", ""},
		{"a path with a NUL", "docker-archive:/a\x00", ""},
		{"an option in place of a package", "deb:trixie?include=-oDir=/", ""},
		{"a version", "deb:trixie?include=jq=1", ""},
		{"an empty package", "deb:trixie?include=jq,", ""},
		{"an unknown query", "deb:trixie?exclude=jq", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r, err := parseReference(tc.in)
			if tc.want == "" {
				if sandbox.CodeOf(err) != sandbox.ImageNotFound {
					t.Errorf("parseReference(%q) = %v, %v; want image_not_found", tc.in, r, err)
				}
				return
			}
			if err != nil || r.String() != tc.want {
				t.Errorf("parseReference(%q) = %v, %v; want %s", tc.in, r, err, tc.want)
			}
		})
	}
}

func TestHostMirrors(t *testing.T) {
	const a, b = "http://mirror.example/debian", "http://mirror.example/debian-security"
	for _, tc := range []struct {
		name, file, text string
		want             mirrors
	}{
		{"one-line form with options", "sources.list",
			"# deb http://old.example/ trixie main\ndeb [arch=amd64 signed-by=/x] " + a + " bookworm main contrib # c\ndeb " + b + " bookworm-security main\n",
			mirrors{a, b}},
		{"deb822", "sources.list.d/debian.sources",
			"Types: deb deb-src\n# comment\nURIs: " + a + "\nSuites: trixie trixie-updates\nComponents: main\n\nTypes: deb\nURIs: " + b + "\nSuites:\n trixie-security\nComponents: main\n",
			mirrors{a, b}},
		{"disabled and sources are no mirror", "sources.list.d/x.sources",
			"Types: deb\nEnabled: no\nURIs: " + a + "\nSuites: trixie\nComponents: main\n\nTypes: deb-src\nURIs: " + a + "\nSuites: trixie\nComponents: main\n",
			mirrors{}},
		{"another distribution's archive", "sources.list", "deb http://other.example/ noble main\n", mirrors{}},
		{"a vendor's repository", "sources.list", "deb http://vendor.example/ stable-vendor main\ndeb http://vendor.example/ nodistro main\n", mirrors{}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			etc := t.TempDir()
			file := filepath.Join(etc, tc.file)
			if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, []byte(tc.text), 0o644); err != nil {
				t.Fatal(err)
			}
			if got := hostMirrors(etc); got != tc.want {
				t.Errorf("hostMirrors = %+v, want %+v", got, tc.want)
			}
		})
	}
}

func TestAlternativesOf(t *testing.T) {
	const script = `if [ "$1" = configure ]; then
	update-alternatives --quiet --install /usr/bin/awk awk \
		/usr/bin/mawk 5 \
		--slave /usr/bin/nawk nawk /usr/bin/mawk
	update-alternatives --install /usr/bin/$x x /usr/bin/y 1
	update-alternatives --remove awk /usr/bin/mawk
fi`
	got := alternativesOf(script)
	if len(got) != 1 || got[0].name != "awk" || got[0].path != "/usr/bin/mawk" || got[0].priority != 5 ||
		!slices.Equal(got[0].slaves, [][3]string{{"/usr/bin/nawk", "nawk", "/usr/bin/mawk"}}) {
		t.Errorf("alternativesOf = %+v; want awk alone, with nawk", got)
	}
}

func FuzzReadDeb(f *testing.F) {
	f.Add("!<arch>\ndebian-binary   0           0     0     100644  4         `\n2.0\n")
	f.Add("!<arch>\ndata.tar.xz     0           0     0     100644  999999999 `\n")
	f.Fuzz(func(t *testing.T, s string) {
		if d, err := readDeb(strings.NewReader(s)); err == nil && (d.control == nil || d.data == nil) {
			t.Error("a package without its archives was taken")
		}
	})
}

func TestLastErrorHidesCredentials(t *testing.T) {
	got := lastError("W: x\nE: first\nE: Failed to fetch http://user:secret@mirror.example/x  401\n")
	if strings.Contains(got, "secret") || !strings.Contains(got, "mirror.example/x 401") {
		t.Errorf("lastError = %q", got)
	}
}
