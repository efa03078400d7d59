package index

import (
	"encoding/json"
	"mime"
	"net/http"
	"net/url"
	"regexp"
	"strings"
)

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
	body, err := p.npmVersions(body, resp.Request.URL)
	if err != nil {
		unreachable(w, err)
		return
	}
	kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	reply(w, resp, kind, body)
}

func (p *Proxy) npmVersions(body []byte, at *url.URL) ([]byte, error) {
	var doc, versions map[string]json.RawMessage
	if err := json.Unmarshal(body, &doc); err != nil {
		return nil, err
	}
	if doc["versions"] == nil {
		return body, nil
	}
	if err := json.Unmarshal(doc["versions"], &versions); err != nil {
		return nil, err
	}
	for name, v := range versions {
		var version map[string]json.RawMessage
		err := json.Unmarshal(v, &version)
		if err == nil && version["dist"] != nil {
			if version["dist"], err = p.relinked(version["dist"], "tarball", "attestations", at); err == nil {
				versions[name], err = json.Marshal(version)
			}
		}
		if err != nil {
			return nil, err
		}
	}
	return with(doc, "versions", versions)
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
