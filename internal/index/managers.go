package index

import (
	"bytes"
	"encoding/json"
	"io"
	"mime"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"

	"golang.org/x/net/html"
	"golang.org/x/net/html/atom"
)

// Address inside the machine of what each manager is told to ask.
const (
	PipIndex    = self + "/pip/" // and the base's number
	NpmRegistry = self + "/npm/"
	GoProxy     = self + "/go"
	CargoIndex  = "sparse+" + self + "/cargo/"
)

// PipIndexes are the addresses of all bases.
func (u Upstream) PipIndexes() []string {
	var all []string
	for i := range u.Bases {
		all = append(all, PipIndex+strconv.Itoa(i)+"/")
	}
	return all
}

var pipName = regexp.MustCompile(`^[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?$`)

const simpleJSON = "application/vnd.pypi.simple.v1+json"

// pipPage is the list of one project's files, as HTML or JSON. Source: PEP 503, PEP 691.
func (p *Proxy) pipPage(w http.ResponseWriter, r *http.Request) {
	n, err := strconv.Atoi(r.PathValue("n"))
	if err != nil || n < 0 || n >= len(p.up.Bases) || !pipName.MatchString(r.PathValue("name")) {
		http.NotFound(w, r)
		return
	}
	body, resp, done, ok := p.page(w, r, p.up.Bases[n].URL.JoinPath(r.PathValue("name"), "/"))
	if !ok {
		return
	}
	defer done()
	kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	at := resp.Request.URL // after redirects
	if kind == simpleJSON {
		body, err = p.pipJSON(body, at)
	} else {
		kind = "text/html; charset=utf-8"
		body, err = p.pipHTML(body, at)
	}
	if err != nil {
		unreachable(w, err)
		return
	}
	reply(w, resp, kind, body)
}

func (p *Proxy) pipJSON(body []byte, at *url.URL) ([]byte, error) {
	doc, err := object(body)
	if err != nil {
		return nil, err
	}
	files, _ := doc["files"].([]any)
	for _, f := range files {
		if file, ok := f.(map[string]any); ok {
			delete(file, "provenance")
			p.relink(file, "url", at)
		}
	}
	return json.Marshal(doc)
}

// pipHTML writes the page anew: its anchors and their attributes, and nothing else.
func (p *Proxy) pipHTML(body []byte, at *url.URL) ([]byte, error) {
	var out bytes.Buffer
	out.WriteString("<!DOCTYPE html><html><head><meta name=\"pypi:repository-version\" content=\"1.0\"></head><body>\n")
	z := html.NewTokenizer(bytes.NewReader(body))
	for {
		switch z.Next() {
		case html.ErrorToken:
			if z.Err() != io.EOF {
				return nil, z.Err()
			}
			out.WriteString("</body></html>\n")
			return out.Bytes(), nil
		case html.StartTagToken, html.SelfClosingTagToken:
			t := z.Token()
			switch t.DataAtom {
			case atom.Base:
				for _, a := range t.Attr {
					if v, err := at.Parse(a.Val); a.Key == "href" && err == nil {
						at = v
					}
				}
			case atom.A:
				p.anchor(&out, t, at)
			}
		}
	}
}

func (p *Proxy) anchor(out *bytes.Buffer, t html.Token, at *url.URL) {
	written := html.Token{Type: html.StartTagToken, DataAtom: atom.A, Data: "a"}
	name := ""
	for _, a := range t.Attr {
		switch {
		case a.Key == "href":
			v, err := at.Parse(strings.TrimSpace(a.Val))
			if err != nil || v.Scheme != "http" && v.Scheme != "https" {
				return
			}
			name = v.Path[strings.LastIndexByte(v.Path, '/')+1:]
			a.Val = p.signed(v)
			fallthrough
		case strings.HasPrefix(a.Key, "data-"):
			written.Attr = append(written.Attr, html.Attribute{Key: a.Key, Val: a.Val})
		}
	}
	if name == "" {
		return
	}
	out.WriteString(written.String() + html.EscapeString(name) + "</a><br>\n")
}

// object reads a JSON object without losing digits.
func object(body []byte) (map[string]any, error) {
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	var doc map[string]any
	return doc, d.Decode(&doc)
}

// relink puts our address in the place of the index's; what is none is taken out.
func (p *Proxy) relink(in map[string]any, key string, at *url.URL) {
	text, _ := in[key].(string)
	v, err := at.Parse(text)
	if text == "" || err != nil || v.Scheme != "http" && v.Scheme != "https" {
		delete(in, key)
		return
	}
	in[key] = p.signed(v)
}

var npmName = regexp.MustCompile(`^(?:(@[A-Za-z0-9._~-]+)/)?[A-Za-z0-9_~-][A-Za-z0-9._~-]*$`)

// npmDocument is what a registry says of one package. Source: npm, "package-metadata.md".
func (p *Proxy) npmDocument(w http.ResponseWriter, r *http.Request) {
	name := strings.TrimPrefix(r.URL.Path, "/npm/")
	m := npmName.FindStringSubmatch(name)
	if m == nil {
		http.NotFound(w, r)
		return
	}
	base, ok := p.scoped(m[1])
	if !ok {
		http.NotFound(w, r)
		return
	}
	u := *base.URL
	u.Path, u.RawPath = base.URL.Path+name, base.URL.EscapedPath()+strings.ReplaceAll(name, "/", "%2f")
	body, resp, done, ok := p.page(w, r, &u)
	if !ok {
		return
	}
	defer done()
	doc, err := object(body)
	if err != nil {
		unreachable(w, err)
		return
	}
	versions, _ := doc["versions"].(map[string]any)
	for _, v := range versions {
		version, _ := v.(map[string]any)
		if dist, ok := version["dist"].(map[string]any); ok {
			delete(dist, "attestations")
			p.relink(dist, "tarball", resp.Request.URL)
		}
	}
	kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if body, err = json.Marshal(doc); err != nil {
		unreachable(w, err)
		return
	}
	reply(w, resp, kind, body)
}

// scoped is the base that has a scope's packages.
func (p *Proxy) scoped(scope string) (found Base, ok bool) {
	for _, b := range p.up.Bases {
		if scope != "" && b.Scope == scope {
			return b, true
		}
		if b.Scope == "" && !ok {
			found, ok = b, true
		}
	}
	return found, ok
}

var (
	goPath  = regexp.MustCompile(`^[A-Za-z0-9!._~-]+(?:/[A-Za-z0-9!._~-]+)*/@(?:latest|v/list|v/[A-Za-z0-9!._+~-]+\.(?:info|mod|zip))$`)
	sumPath = regexp.MustCompile(`^sumdb/([A-Za-z0-9.-]+)/(supported|latest|lookup/[A-Za-z0-9!._~/-]+@[A-Za-z0-9!._+~-]+|tile/[0-9a-z/.]+)$`)
)

// goFile is one file of the module proxy protocol. Source: The Go Modules Reference, "GOPROXY protocol".
func (p *Proxy) goFile(w http.ResponseWriter, r *http.Request) {
	name := strings.TrimPrefix(r.URL.Path, "/go/")
	if m := sumPath.FindStringSubmatch(name); m != nil && m[1] == p.up.SumDB && dotless(name) {
		p.sum(w, r, m[2])
		return
	}
	if !goPath.MatchString(name) || !dotless(name) {
		http.NotFound(w, r)
		return
	}
	for i, b := range p.up.Bases {
		resp, err := p.get(r, b.URL.JoinPath(name))
		last := i == len(p.up.Bases)-1
		switch {
		case err != nil && (last || b.onlyMissing):
			unreachable(w, err)
			return
		case err != nil:
			continue
		case resp.StatusCode < 300:
			p.pass(w, resp)
			return
		}
		resp.Body.Close()
		missing := resp.StatusCode == http.StatusNotFound || resp.StatusCode == http.StatusGone
		if last || b.onlyMissing && !missing {
			status(w, resp.StatusCode)
			return
		}
	}
}

func dotless(name string) bool {
	for part := range strings.SplitSeq(name, "/") {
		if part == "." || part == ".." {
			return false
		}
	}
	return true
}

// sum asks the checksum database: through the module proxy where that serves it, else the database itself.
func (p *Proxy) sum(w http.ResponseWriter, r *http.Request, what string) {
	if what == "supported" {
		w.WriteHeader(http.StatusOK)
		return
	}
	base := p.sumBase.Load()
	if base == nil {
		base = &url.URL{Scheme: "https", Host: p.up.SumDB, Path: "/"}
		for _, b := range p.up.Bases {
			at := b.URL.JoinPath("sumdb", p.up.SumDB, "/")
			if resp, err := p.get(r, at.JoinPath("supported")); err == nil {
				resp.Body.Close()
				if resp.StatusCode == http.StatusOK {
					base = at
					break
				}
			}
		}
		p.sumBase.Store(base)
	}
	p.file(w, r, base.JoinPath(what))
}

var (
	cargoPath  = regexp.MustCompile(`^(?:1|2|3/[a-z0-9_-]|[a-z0-9_-]{2}/[a-z0-9_-]{2})/[a-z0-9_-]+$`)
	cargoCrate = regexp.MustCompile(`^dl/([A-Za-z0-9_-]+)/([0-9][A-Za-z0-9.+-]*)/([0-9a-f]{64})$`)
)

// cargoFile is a file of a sparse index, or a crate. Source: The Cargo Book, "Index Format".
func (p *Proxy) cargoFile(w http.ResponseWriter, r *http.Request) {
	name := strings.TrimPrefix(r.URL.Path, "/cargo/")
	base := p.up.Bases[0].URL
	switch m := cargoCrate.FindStringSubmatch(name); {
	case name == "config.json":
		dl, resp, ok := p.cargoConfig(w, r)
		if !ok {
			return
		}
		p.dl.Store(&dl)
		reply(w, resp, "application/json", []byte(`{"dl":"`+self+`/cargo/dl/{crate}/{version}/{sha256-checksum}"}`))
	case cargoPath.MatchString(name):
		p.file(w, r, base.JoinPath(name))
	case m != nil && p.dl.Load() != nil:
		u, err := base.Parse(crateAddress(*p.dl.Load(), m[1], m[2], m[3]))
		if err != nil {
			unreachable(w, err)
			return
		}
		p.file(w, r, u)
	default:
		http.NotFound(w, r)
	}
}

func (p *Proxy) cargoConfig(w http.ResponseWriter, r *http.Request) (dl string, resp *http.Response, ok bool) {
	body, resp, done, ok := p.page(w, r, p.up.Bases[0].URL.JoinPath("config.json"))
	if !ok {
		return "", nil, false
	}
	defer done()
	var c struct {
		DL string `json:"dl"`
	}
	if err := json.Unmarshal(body, &c); err != nil || c.DL == "" {
		unreachable(w, err)
		return "", nil, false
	}
	return c.DL, resp, true
}

// crateAddress fills in the template of a crate's address.
func crateAddress(template, crate, version, sum string) string {
	prefix := func(name string) string {
		switch n := len(name); {
		case n < 3:
			return strconv.Itoa(n)
		case n == 3:
			return "3/" + name[:1]
		}
		return name[:2] + "/" + name[2:4]
	}
	filled := strings.NewReplacer("{crate}", crate, "{version}", version, "{prefix}", prefix(crate),
		"{lowerprefix}", prefix(strings.ToLower(crate)), "{sha256-checksum}", sum).Replace(template)
	if filled == template {
		filled += "/" + crate + "/" + version + "/download"
	}
	return filled
}
