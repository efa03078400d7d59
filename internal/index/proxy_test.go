package index_test

import (
	"context"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/net/dns/dnsmessage"

	"outpost.run/outpost/internal/index"
)

// TestMain lets the process trust the certificates of httptest, which are for example.com and *.example.com.
func TestMain(m *testing.M) {
	s := httptest.NewTLSServer(nil)
	f, err := os.CreateTemp("", "roots-*.pem")
	if err != nil {
		panic(err)
	}
	if err := pem.Encode(f, &pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}); err != nil {
		panic(err)
	}
	s.Close()
	f.Close()
	os.Setenv("SSL_CERT_FILE", f.Name())
	os.Setenv("SSL_CERT_DIR", "/nowhere")
	for _, name := range []string{"http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"} {
		os.Unsetenv(name)
	}
	code := m.Run()
	os.Remove(f.Name())
	os.Exit(code)
}

// upstream is an index of the test's own, which notes what it was asked.
type upstream struct {
	*httptest.Server
	asked chan string // METHOD PATH AUTHORIZATION
	auth  string      // what it wants; "" for nothing
}

// newUpstream serves pages by path; @ in a page stands for the server's own address, as name.
func newUpstream(t *testing.T, tls bool, auth string, pages map[string]string) *upstream {
	t.Helper()
	u := &upstream{asked: make(chan string, 1000), auth: auth}
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		u.asked <- strings.TrimSpace(r.Method + " " + r.URL.EscapedPath() + " " + r.Header.Get("Authorization"))
		page, ok := pages[r.URL.EscapedPath()]
		switch {
		case u.auth != "" && r.Header.Get("Authorization") != u.auth:
			http.Error(w, "who are you? ask secret-host", http.StatusUnauthorized)
		case !ok:
			http.NotFound(w, r)
		case strings.HasPrefix(page, "-> "):
			http.Redirect(w, r, page[3:], http.StatusFound)
		default:
			if kind, rest, ok := strings.Cut(page, "\n\n"); ok && strings.Contains(kind, "/") && !strings.Contains(kind, "<") {
				w.Header().Set("Content-Type", kind)
				page = rest
			}
			fmt.Fprint(w, page)
		}
	})
	if tls {
		u.Server = httptest.NewTLSServer(h)
	} else {
		u.Server = httptest.NewServer(h)
	}
	t.Cleanup(u.Close)
	return u
}

// port is the server's, with a colon.
func (u *upstream) port() string { return u.URL[strings.LastIndexByte(u.URL, ':'):] }

func (u *upstream) questions() (all []string) {
	for {
		select {
		case q := <-u.asked:
			all = append(all, q)
		default:
			return all
		}
	}
}

// served is a proxy of the index, as a machine sees it.
func served(t *testing.T, m index.Manager, address string, change func(*index.Upstream)) (*index.Proxy, func(path string) (int, string)) {
	t.Helper()
	up, err := index.Parse(m, address)
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(&up)
	}
	p := index.NewProxy(up, slog.New(slog.DiscardHandler))
	p.Resolve(names(t))
	s := httptest.NewServer(p)
	t.Cleanup(func() { s.Close(); p.Close() })
	return p, func(path string) (int, string) {
		path = strings.TrimPrefix(path, "http://127.0.0.1")
		r, err := http.NewRequest(http.MethodGet, s.URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer of-the-machine")
		r.Header.Set("Cookie", "a=b")
		resp, err := http.DefaultTransport.RoundTrip(r)
		if err != nil {
			return 0, err.Error()
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			return 0, err.Error()
		}
		return resp.StatusCode, string(b)
	}
}

// names is a resolver by which every name below example.com is 127.0.0.1.
func names(t *testing.T) *net.Resolver {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	go func() {
		buf := make([]byte, 1500)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			var m dnsmessage.Message
			if m.Unpack(buf[:n]) != nil {
				continue
			}
			m.Response, m.Additionals = true, nil
			if q := m.Questions[0]; q.Type == dnsmessage.TypeA {
				m.Answers = []dnsmessage.Resource{{Header: dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, TTL: 1}, Body: &dnsmessage.AResource{A: [4]byte{127, 0, 0, 1}}}}
			}
			if b, err := m.Pack(); err == nil {
				_, _ = conn.WriteTo(b, from)
			}
		}
	}()
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "udp", conn.LocalAddr().String())
	}}
}

var link = regexp.MustCompile(`http://127\.0\.0\.1/link/[^"#< ]+`)

func TestPip(t *testing.T) {
	for _, kind := range []string{"html", "json"} {
		t.Run(kind, func(t *testing.T) {
			pages := map[string]string{"/s/files/six-1.whl": "the wheel", "/s/files/six-1.whl.metadata": "Name: six"}
			u := newUpstream(t, true, "Basic dTpw", pages)
			at := "https://u:p@index.example.com" + u.port() + "/s/"
			pages["/s/six/"] = `text/html` + "\n\n" + `<html><body><a href="../files/six-1.whl#sha256=aa" data-requires-python="&gt;=3" onclick="x">six-1.whl</a>
<a href="ftp://x/y.whl">y</a><script>alert(1)</script></body></html>`
			if kind == "json" {
				pages["/s/six/"] = "application/vnd.pypi.simple.v1+json\n\n" + `{"meta":{"api-version":"1.1"},"files":[{"filename":"six-1.whl","url":"https://index.example.com` + u.port() + `/s/files/six-1.whl","hashes":{"sha256":"aa"},"size":12345678901234567890,"provenance":"https://x/"},{"url":"file:///etc/passwd"}]}`
			}
			_, get := served(t, index.Pip, at, nil)
			code, page := get("/pip/0/six/")
			if code != 200 || strings.Contains(page, "example.com") || strings.Contains(page, "onclick") || strings.Contains(page, "alert") || strings.Contains(page, "ftp") || strings.Contains(page, "passwd") {
				t.Fatalf("%d %s", code, page)
			}
			if kind == "html" && (!strings.Contains(page, "#sha256=aa") || !strings.Contains(page, `data-requires-python="&gt;=3"`)) || kind == "json" && !strings.Contains(page, "12345678901234567890") {
				t.Errorf("lost on the way: %s", page)
			}
			links := link.FindAllString(page, -1)
			if len(links) != 1 {
				t.Fatalf("%q", links)
			}
			if code, body := get(links[0]); code != 200 || body != "the wheel" {
				t.Errorf("the file: %d %s", code, body)
			}
			if code, body := get(links[0] + ".metadata"); code != 200 || body != "Name: six" {
				t.Errorf("its metadata: %d %s", code, body)
			}
			for _, q := range u.questions() {
				if !strings.HasSuffix(q, " Basic dTpw") {
					t.Errorf("asked as %s", q)
				}
			}
			// What the index did not name is not there, whoever asks how.
			for _, path := range []string{
				strings.Replace(links[0], "/link/", "/link/x", 1), links[0] + "x", strings.TrimSuffix(links[0], "six-1.whl") + "seven.whl",
				"/pip/1/six/", "/pip/-1/six/", "/pip/0/six", "/pip/0/..%2ffiles%2fsix-1.whl/", "/pip/0/%2e%2e/", "/s/six/", "/", "/npm/six", "/go/x.y/@latest", "/cargo/config.json", "/link/a/six-1.whl", "/link/a/b/c",
			} {
				if code, body := get(path); code != 404 && code != 301 && code != 307 {
					t.Errorf("%s: %d %s", path, code, body)
				}
			}
			if q := u.questions(); len(q) > 0 {
				t.Errorf("the index was asked %q", q)
			}
		})
	}
}

func TestOnlyQuestionsAreAnswered(t *testing.T) {
	u := newUpstream(t, false, "", map[string]string{"/six/": "x"})
	p, _ := served(t, index.Pip, u.URL, nil)
	for _, method := range []string{"POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PROPFIND"} {
		w := httptest.NewRecorder()
		p.ServeHTTP(w, httptest.NewRequest(method, "/pip/0/six/", nil))
		if w.Code != http.StatusMethodNotAllowed {
			t.Errorf("%s: %d", method, w.Code)
		}
	}
	if q := u.questions(); len(q) > 0 {
		t.Errorf("the index was asked %q", q)
	}
}

// TestTheIndexLeadsNowhereElse: an index, or who can write into it, must not make the server ask private addresses, nor
// see its credentials at another host.
func TestTheIndexLeadsNowhereElse(t *testing.T) {
	victim := newUpstream(t, false, "", map[string]string{"/secret": "a secret"})
	victimTLS := newUpstream(t, true, "", map[string]string{"/secret": "a secret"})
	for name, to := range map[string]string{
		"a private address":       victim.URL + "/secret",
		"one over TLS":            victimTLS.URL + "/secret",
		"a name for one":          "https://victim.example.com" + victimTLS.port() + "/secret",
		"another scheme":          "http://victim.example.com" + victim.port() + "/secret",
		"a mapped address":        "https://[::ffff:127.0.0.1]" + victimTLS.port() + "/secret",
		"a short address":         "http://127.1" + victim.port() + "/secret",
		"a number":                "http://2130706433" + victim.port() + "/secret",
		"another port of its own": "http://index.example.com" + victim.port() + "/secret",
		"the metadata service":    "http://169.254.169.254/latest",
	} {
		for _, how := range []string{"link", "redirect", "redirected page"} {
			pages := map[string]string{"/six/": `<a href="` + to + `">x</a>`}
			if how == "redirect" {
				pages["/six/"], pages["/f"] = `<a href="/f">x</a>`, "-> "+to
			}
			if how == "redirected page" {
				pages["/six/"] = "-> " + to
			}
			u := newUpstream(t, true, "Basic dTpw", pages)
			_, get := served(t, index.Pip, "https://u:p@index.example.com"+u.port(), nil)
			code, body := get("/pip/0/six/")
			if how != "redirected page" {
				if code != 200 {
					t.Fatalf("%s: %d %s", name, code, body)
				}
				code, body = get(link.FindString(body))
			}
			if code != http.StatusBadGateway || strings.Contains(body, "a secret") || strings.Contains(body, "127.0.0.1") || strings.Contains(body, "example.com") {
				t.Errorf("%s by %s: %d %s", name, how, code, body)
			}
		}
	}
	if q := append(victim.questions(), victimTLS.questions()...); len(q) > 0 {
		t.Errorf("asked was %q", q)
	}
}

// TestAHostOfTheIndexsOwnAddress: files may lie at another name of the same machine, which TLS proves; it gets no credentials.
func TestAHostOfTheIndexsOwnAddress(t *testing.T) {
	pages := map[string]string{"/f.whl": "the wheel"}
	u := newUpstream(t, true, "", pages)
	pages["/six/"] = `<a href="https://files.example.com` + u.port() + `/f.whl">x</a>`
	_, get := served(t, index.Pip, "https://u:p@index.example.com"+u.port(), nil)
	_, page := get("/pip/0/six/")
	if code, body := get(link.FindString(page)); code != 200 || body != "the wheel" {
		t.Errorf("%d %s", code, body)
	}
	if q := u.questions(); len(q) != 2 || q[0] != "GET /six/ Basic dTpw" || q[1] != "GET /f.whl" {
		t.Errorf("asked was %q", q)
	}
}

// TestAHostOfTheSameAddressWithoutTLS proves nothing of itself.
func TestAHostOfTheSameAddressWithoutTLS(t *testing.T) {
	pages := map[string]string{"/f.whl": "the wheel"}
	u := newUpstream(t, false, "", pages)
	pages["/six/"] = `<a href="http://files.example.com` + u.port() + `/f.whl">x</a>`
	_, get := served(t, index.Pip, "http://index.example.com"+u.port(), nil)
	_, page := get("/pip/0/six/")
	if code, body := get(link.FindString(page)); code != http.StatusBadGateway {
		t.Errorf("%d %s", code, body)
	}
}

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

// TestRefusalsTellNothing of the index: the machine and its client see them.
func TestRefusalsTellNothing(t *testing.T) {
	u := newUpstream(t, true, "Basic wrong", nil)
	_, get := served(t, index.Pip, "https://u:p@index.example.com"+u.port(), nil)
	code, body := get("/pip/0/six/")
	if code != http.StatusForbidden || strings.Contains(body, "secret-host") {
		t.Errorf("%d %s", code, body)
	}
	u.Close()
	if code, body := get("/pip/0/six/"); code != http.StatusBadGateway || strings.Contains(body, "example.com") || strings.Contains(body, "127.0.0.1") {
		t.Errorf("%d %s", code, body)
	}
}

// TestWhatIsTooMuch: an index that sends without end is cut off.
func TestWhatIsTooMuch(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for chunk := make([]byte, 1<<20); ; {
			if _, err := w.Write(chunk); err != nil {
				return
			}
		}
	}))
	defer s.Close()
	_, get := served(t, index.Pip, s.URL, nil)
	if code, body := get("/pip/0/six/"); code != http.StatusBadGateway {
		t.Errorf("%d %.200s", code, body)
	}
}
