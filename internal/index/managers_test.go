package index_test

import (
	"strings"
	"testing"

	"outpost.run/outpost/internal/index"
)

func TestNpm(t *testing.T) {
	pages := map[string]string{"/r/x/-/x-1.tgz": "the package", "/acme/-/y-1.tgz": "acme's"}
	u := newUpstream(t, true, "", pages)
	at := "https://npm.example.com" + u.port()
	pages["/r/x"] = "application/vnd.npm.install-v1+json; charset=utf-8\n\n" + `{"name":"x","versions":{"1.0.0":{"dist":{"tarball":"` + at + `/r/x/-/x-1.tgz","integrity":"sha512-aa","attestations":{"url":"` + at + `"}}},"2.0.0":{"dist":{"tarball":"git+ssh://x"}}}}`
	pages["/acme/@acme%2fy"] = `{"versions":{"1.0.0":{"dist":{"tarball":"` + at + `/acme/-/y-1.tgz"}}}}`
	host := hostWith(t, map[string]string{"/home/u/.npmrc": "registry=" + at + "/r\n@acme:registry=" + at + "/acme\n//npm.example.com" + u.port() + "/acme/:_authToken=tk\n"}, nil)
	up, err := host.Upstream(index.Npm, "")
	if err != nil {
		t.Fatal(err)
	}
	_, get := served(t, index.Npm, at, func(u *index.Upstream) { *u = up })
	for path, want := range map[string]string{"/npm/x": "the package", "/npm/@acme%2fy": "acme's"} {
		code, page := get(path)
		if code != 200 || strings.Contains(page, "example.com") || strings.Contains(page, "ssh") {
			t.Errorf("%d %s", code, page)
		}
		if code, body := get(link.FindString(page)); code != 200 || body != want {
			t.Errorf("%d %s", code, body)
		}
	}
	for _, q := range u.questions() {
		if strings.HasSuffix(q, "Bearer tk") != strings.Contains(q, "/acme/") {
			t.Errorf("asked as %s", q)
		}
	}
	for _, path := range []string{"/npm/", "/npm/-/v1/search", "/npm/x/1.0.0", "/npm/@acme/y/z", "/npm/%2e%2e%2fx", "/npm/.x"} {
		if code, body := get(path); code != 404 && code != 301 && code != 307 {
			t.Errorf("%s: %d %s", path, code, body)
		}
	}
	if q := u.questions(); len(q) > 0 {
		t.Errorf("the registry was asked %q", q)
	}
}

func TestGo(t *testing.T) {
	first := newUpstream(t, true, "", map[string]string{"/a.test/m/@v/v1.0.0.zip": "the first's"})
	second := newUpstream(t, true, "", map[string]string{"/x/b.test/m/@v/list": "v1.0.0\n", "/x/!case.test/m/@latest": "{}", "/x/sumdb/sum.example.com/supported": "", "/x/sumdb/sum.example.com/lookup/b.test/m@v1.0.0": "sums"})
	list := "https://one.example.com" + first.port() + ",https://two.example.com" + second.port() + "/x,direct"
	_, get := served(t, index.Go, list, func(u *index.Upstream) { u.SumDB = "sum.example.com" })
	for path, want := range map[string]string{"/go/a.test/m/@v/v1.0.0.zip": "the first's", "/go/b.test/m/@v/list": "v1.0.0\n", "/go/!case.test/m/@latest": "{}",
		"/go/sumdb/sum.example.com/supported": "", "/go/sumdb/sum.example.com/lookup/b.test/m@v1.0.0": "sums"} {
		if code, body := get(path); code != 200 || body != want {
			t.Errorf("%s: %d %s", path, code, body)
		}
	}
	if code, _ := get("/go/c.test/m/@v/list"); code != 404 {
		t.Errorf("what neither has: %d", code)
	}
	first.questions()
	second.questions()
	for _, path := range []string{"/go/a.test/m", "/go/a.test/../../m/@v/list", "/go/a.test/%2e%2e/@v/list", "/go/sumdb/other.example.com/latest", "/go/sumdb/sum.example.com/other", "/go/a.test/m/@v/v1.tar", "/go/"} {
		if code, body := get(path); code != 404 && code != 301 && code != 307 {
			t.Errorf("%s: %d %s", path, code, body)
		}
	}
	if q := append(first.questions(), second.questions()...); len(q) > 0 {
		t.Errorf("asked was %q", q)
	}
	first.Close() // a comma goes on for what is not there, and not for a failure
	if code, _ := get("/go/b.test/m/@v/list"); code != 502 {
		t.Errorf("with the first gone: %d", code)
	}
	_, get = served(t, index.Go, strings.Replace(list, ",", "|", 1), nil)
	if code, _ := get("/go/b.test/m/@v/list"); code != 200 {
		t.Errorf("with the first gone and a bar: %d", code)
	}
}

func TestCargo(t *testing.T) {
	const sum = "0123456789012345678901234567890123456789012345678901234567890123"
	for template, path := range map[string]string{"/dl": "/dl/Abcd/1.0.0+x/download", "/c/{lowerprefix}/{crate}/{prefix}-{version}.crate": "/c/ab/cd/Abcd/Ab/cd-1.0.0+x.crate", "/d/{sha256-checksum}": "/d/" + sum} {
		pages := map[string]string{"/i/ab/cd/abcd": "{}\n", path: "the crate"}
		u := newUpstream(t, true, "tk", pages)
		at := "https://crates.example.com" + u.port()
		pages["/i/config.json"] = `{"dl":"` + at + template + `","api":"https://x","auth-required":true}`
		host := hostWith(t, map[string]string{"/home/u/.cargo/config.toml": "[registries.x]\nindex='sparse+" + at + "/i/'\ntoken='tk'\n"}, nil)
		up, err := host.Upstream(index.Cargo, "sparse+"+at+"/i")
		if err != nil {
			t.Fatal(err)
		}
		_, get := served(t, index.Cargo, at, func(u *index.Upstream) { *u = up })
		crate := "/cargo/dl/Abcd/1.0.0+x/" + sum
		if code, _ := get(crate); code != 404 {
			t.Errorf("before the index said where: %d", code)
		}
		if code, body := get("/cargo/config.json"); code != 200 || body != `{"dl":"http://127.0.0.1/cargo/dl/{crate}/{version}/{sha256-checksum}"}` {
			t.Errorf("%d %s", code, body)
		}
		for path, want := range map[string]string{"/cargo/ab/cd/abcd": "{}\n", crate: "the crate"} {
			if code, body := get(path); code != 200 || body != want {
				t.Errorf("%s: %d %s", path, code, body)
			}
		}
		u.questions()
		for _, path := range []string{"/cargo/", "/cargo/me", "/cargo/api/v1/crates", "/cargo/ab/cd/../x", "/cargo/ab/cd", "/cargo/dl/x/..%2f..%2fme/" + sum} {
			if code, body := get(path); code != 404 && code != 301 && code != 307 {
				t.Errorf("%s: %d %s", path, code, body)
			}
		}
		if q := u.questions(); len(q) > 0 {
			t.Errorf("the index was asked %q", q)
		}
	}
}
