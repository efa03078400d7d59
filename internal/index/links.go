package index

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"net/url"
	"path"
)

// signed gives the address inside the machine of a file that the index named. It tells nothing of where that is: the
// index's own address may be one that is worth something, and the machine is not to make such names itself.
func (p *Proxy) signed(u *url.URL) string {
	bare := *u
	bare.Fragment, bare.RawFragment, bare.User = "", "", nil
	name := p.mac(bare.String())
	p.mu.Lock()
	if len(p.links) < maxLinks {
		p.links[name] = &bare
	}
	p.mu.Unlock()
	out := self + "/link/" + name + "/" + url.PathEscape(path.Base(bare.Path))
	if u.Fragment != "" {
		out += "#" + u.EscapedFragment()
	}
	return out
}

func (p *Proxy) mac(text string) string {
	h := hmac.New(sha256.New, p.key[:])
	h.Write([]byte(text))
	return base64.RawURLEncoding.EncodeToString(h.Sum(nil)[:16])
}

// link fetches a file that the index named, or for pip its metadata, which lies beside it. Source: PEP 658.
func (p *Proxy) link(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	known := p.links[r.PathValue("mac")]
	p.mu.Unlock()
	if known == nil {
		http.Error(w, "the index named no such file", http.StatusNotFound)
		return
	}
	u := *known
	switch name := path.Base(u.Path); r.PathValue("name") {
	case name:
	case name + ".metadata":
		u.Path, u.RawPath = u.Path+".metadata", ""
	default:
		http.Error(w, "the index named no such file", http.StatusNotFound)
		return
	}
	p.file(w, r, &u)
}

// file fetches a file and hands it on as it comes.
func (p *Proxy) file(w http.ResponseWriter, r *http.Request, u *url.URL) {
	r = r.Clone(r.Context())
	r.Header.Set("Accept-Encoding", "identity") // what is packed stays so: its sum is known
	resp, err := p.get(r, u)
	if err != nil {
		unreachable(w, err)
		return
	}
	if resp.StatusCode >= 300 {
		resp.Body.Close()
		status(w, resp.StatusCode)
		return
	}
	p.pass(w, resp)
}
