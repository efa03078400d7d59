package index

import (
	"bytes"
	"encoding/json"
	"errors"
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
	var doc map[string]json.RawMessage
	var files []json.RawMessage
	if err := errors.Join(json.Unmarshal(body, &doc), json.Unmarshal(doc["files"], &files)); err != nil {
		return nil, err
	}
	for i, f := range files {
		var err error
		if files[i], err = p.relinked(f, "url", "provenance", at); err != nil {
			return nil, err
		}
	}
	return with(doc, "files", files)
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
