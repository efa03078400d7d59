package index

import (
	"encoding/json"
	"net/http"
	"regexp"
	"strconv"
	"strings"
)

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
