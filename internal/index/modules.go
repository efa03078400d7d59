package index

import (
	"net/http"
	"net/url"
	"regexp"
	"strings"
)

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
