package index_test

import (
	"encoding/base64"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"outpost.run/outpost/internal/index"
	"outpost.run/outpost/sandbox"
)

func basic(words string) string { return "Basic " + base64.StdEncoding.EncodeToString([]byte(words)) }

func TestTheHostsSettingsAreFound(t *testing.T) {
	for _, tc := range []struct {
		name       string
		manager    index.Manager
		configured string
		files, env map[string]string
		want, auth []string // of each base
		empty      bool
	}{
		{name: "nothing said", manager: index.Pip, empty: true},
		{name: "the machine's pip", manager: index.Pip, files: map[string]string{"/etc/pip.conf": "[global]\nindex-url = https://pip.test/a/simple\n"}, want: []string{"https://pip.test/a/simple/"}, auth: []string{""}},
		{name: "the user's over it, with credentials", manager: index.Pip, files: map[string]string{"/etc/pip.conf": "[global]\nindex-url = https://pip.test/a\n",
			"/home/u/.config/pip/pip.conf": "[install]\nindex-url = https://u:p%40x@pip.test/b/\nextra-index-url =\n  https://one.test/simple\n  https://two.test/simple\n"},
			want: []string{"https://pip.test/b/", "https://one.test/simple/", "https://two.test/simple/"}, auth: []string{basic("u:p@x"), "", ""}},
		{name: "the environment over both, netrc for the rest", manager: index.Pip, env: map[string]string{"PIP_INDEX_URL": "https://env.test/s"},
			files: map[string]string{"/etc/pip.conf": "[global]\nindex-url = https://pip.test/a\n", "/home/u/.netrc": "machine other.test login a password b\nmachine env.test\n  login c\n  password d\n"},
			want:  []string{"https://env.test/s/"}, auth: []string{basic("c:d")}},
		{name: "the operator over all", manager: index.Pip, configured: "https://op.test/x", env: map[string]string{"PIP_INDEX_URL": "https://env.test/s"}, want: []string{"https://op.test/x/"}, auth: []string{""}},
		{name: "npm with scopes and tokens", manager: index.Npm, env: map[string]string{"TOKEN": "t0"},
			files: map[string]string{"/etc/npmrc": "registry=https://npm.test/r/\n", "/home/u/.npmrc": "@acme:registry=https://npm.test/acme\n//npm.test/acme/:_authToken=${TOKEN}\n//npm.test/r/:username=u\n//npm.test/r/:_password=cHc=\n; a note\n"},
			want:  []string{"https://npm.test/r/", "https://npm.test/acme/"}, auth: []string{basic("u:pw"), "Bearer t0"}},
		{name: "a token is for what is below its address alone", manager: index.Npm, configured: "https://npm.test/r",
			files: map[string]string{"/home/u/.npmrc": "//npm.test/other/:_authToken=no\n//npm.test.evil.test/:_authToken=no\n"}, want: []string{"https://npm.test/r/"}, auth: []string{""}},
		{name: "a token of the whole host", manager: index.Npm, configured: "https://npm.test:8443/r/s", files: map[string]string{"/home/u/.npmrc": "//npm.test:8443/:_authToken=yes\n"}, want: []string{"https://npm.test:8443/r/s/"}, auth: []string{"Bearer yes"}},
		{name: "a list of Go proxies", manager: index.Go, files: map[string]string{"/home/u/.config/go/env": "GOFLAGS=-mod=mod\nGOPROXY=https://u:p@go.test,https://two.test/x|direct,https://never.test\n"},
			want: []string{"https://go.test/", "https://two.test/x/"}, auth: []string{basic("u:p"), ""}},
		{name: "cargo's replaced source with its token", manager: index.Cargo, files: map[string]string{
			"/home/u/.cargo/config.toml":      "[source.crates-io]\nreplace-with = \"mirror\"\n[source.mirror]\nregistry = \"sparse+https://crates.test/i/\"\n[registries.acme]\nindex = \"sparse+https://crates.test/i/\"\n",
			"/home/u/.cargo/credentials.toml": "[registries.acme]\ntoken = \"tk\"\n"},
			want: []string{"https://crates.test/i/"}, auth: []string{"tk"}},
		{name: "cargo as it comes", manager: index.Cargo, files: map[string]string{"/home/u/.cargo/config.toml": "[build]\njobs = 1\n"}, empty: true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			u, err := hostWith(t, tc.files, tc.env).Upstream(tc.manager, tc.configured)
			if err != nil || u.Empty() != tc.empty {
				t.Fatalf("%+v, %v", u, err)
			}
			var got []string
			for _, b := range u.Bases {
				got = append(got, b.URL.String())
			}
			if !slices.Equal(got, tc.want) || !slices.Equal(u.Auth(), tc.auth) {
				t.Errorf("%q with %q; want %q with %q", got, u.Auth(), tc.want, tc.auth)
			}
			if strings.Contains(u.Name(), "@") && tc.manager != index.Npm {
				t.Errorf("the name tells credentials: %s", u.Name())
			}
		})
	}
}

func TestSettingsThatCantBeUsedSayWhatMendsThem(t *testing.T) {
	for name, tc := range map[string]struct {
		manager    index.Manager
		configured string
		files      map[string]string
	}{
		"no address":     {index.Pip, "ftp://x", nil},
		"no host":        {index.Npm, "https:///x", nil},
		"credentials":    {index.Pip, "gopher://user:secret@x", nil},
		"only direct":    {index.Go, "direct", nil},
		"a git index":    {index.Cargo, "", map[string]string{"/home/u/.cargo/config.toml": "[source.crates-io]\nreplace-with='m'\n[source.m]\nregistry='https://git.test/i'\n"}},
		"no TOML":        {index.Cargo, "", map[string]string{"/home/u/.cargo/config.toml": "[["}},
		"a ring":         {index.Cargo, "", map[string]string{"/home/u/.cargo/config.toml": "[source.crates-io]\nreplace-with='m'\n[source.m]\nreplace-with='crates-io'\n"}},
		"only additions": {index.Pip, "", map[string]string{"/etc/pip.conf": "[global]\nextra-index-url=https://x.test\n"}},
	} {
		u, err := hostWith(t, tc.files, nil).Upstream(tc.manager, tc.configured)
		if name == "a ring" && err == nil && u.Empty() {
			continue // it ends where it began
		}
		if sandbox.CodeOf(err) != sandbox.NotSupported || !strings.Contains(err.Error(), "deps.") || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// hostWith is a host that has these files and variables; its user is at home in /home/u.
func hostWith(t *testing.T, files, env map[string]string) index.Host {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		name = filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return index.Host{Root: root, Home: "/home/u", Getenv: func(name string) string { return env[name] }}
}
