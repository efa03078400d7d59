// Package index knows where packages come from: the settings of the host's own pip, npm, Go and cargo, or the operator's,
// and a proxy that serves one such index, and nothing else, to a machine that has no other way out. The proxy speaks TLS
// and adds the index's credentials; neither is ever seen in the machine.
package index

import (
	"encoding/base64"
	"net/http"
	"net/url"
	"strings"

	"outpost.run/outpost/sandbox"
)

// Manager is one package manager, by its program's name.
type Manager string

// The managers.
const (
	Pip   Manager = "pip"
	Npm   Manager = "npm"
	Go    Manager = "go"
	Cargo Manager = "cargo"
)

// Managers are all of them.
var Managers = []Manager{Pip, Npm, Go, Cargo}

// Base is one index.
type Base struct {
	URL   *url.URL // without credentials, its path ends with a slash
	Scope string   // npm: @scope of the packages that it alone has; "" for all others
	auth  string   // value of the Authorization header; "" for none

	onlyMissing bool // Go: the next is asked only for what this one says it lacks, not when it fails
}

// Upstream is where the packages of one manager come from.
type Upstream struct {
	Manager Manager
	Bases   []Base // in the order in which they are asked
	SumDB   string // Go: the name of the checksum database that the toolchain asks; "" for none
}

// Empty says that neither the operator nor the host names an index: the manager's own default counts.
func (u Upstream) Empty() bool { return len(u.Bases) == 0 }

// Name is what tells one upstream from another: its addresses, without credentials.
func (u Upstream) Name() string {
	parts := []string{string(u.Manager)}
	for _, b := range u.Bases {
		parts = append(parts, b.Scope+b.URL.String())
	}
	return strings.Join(parts, " ")
}

// Parse reads an address, or for Go a list in the spelling of GOPROXY.
//
// Error: NotSupported, the address can't be used; its words hold no credentials.
func Parse(m Manager, text string) (Upstream, error) {
	u := Upstream{Manager: m}
	if m == Go {
		return u, u.parseGo(text)
	}
	b, err := parseBase(m, strings.TrimPrefix(text, "sparse+"))
	u.Bases = []Base{b}
	return u, err
}

// parseGo reads the list: a comma goes on after "not there", a bar after any failure. Source: https part of `go help goproxy`.
func (u *Upstream) parseGo(text string) error {
	for text != "" {
		i := strings.IndexAny(text, ",|")
		item, onlyMissing := text, true
		if i >= 0 {
			item, onlyMissing, text = text[:i], text[i] == ',', text[i+1:]
		} else {
			text = ""
		}
		switch item = strings.TrimSpace(item); item {
		case "":
			continue
		case "direct", "off": // a machine has no way to a repository; what no proxy has is not there
			text = ""
			continue
		}
		b, err := parseBase(Go, item)
		if err != nil {
			return err
		}
		b.onlyMissing = onlyMissing
		u.Bases = append(u.Bases, b)
	}
	if u.Empty() {
		return sandbox.Errorf(sandbox.NotSupported, nil, "the Go settings of this server name no module proxy: the operator can set deps.go_proxy")
	}
	return nil
}

func parseBase(m Manager, text string) (Base, error) {
	v, err := url.Parse(strings.TrimSpace(text))
	if err != nil || v.Scheme != "http" && v.Scheme != "https" || v.Hostname() == "" {
		return Base{}, sandbox.Errorf(sandbox.NotSupported, nil, "the index that this server has for %s is no http or https address: the operator can set deps.%s", m, keys[m])
	}
	b := Base{auth: basic(v.User)}
	b.URL = &url.URL{Scheme: v.Scheme, Host: strings.ToLower(v.Host), Path: strings.TrimRight(v.Path, "/") + "/"}
	return b, nil
}

// keys are the names of the settings in the configuration.
var keys = map[Manager]string{Pip: "pip_index", Npm: "npm_registry", Go: "go_proxy", Cargo: "cargo_index"}

func basic(u *url.Userinfo) string {
	if u == nil {
		return ""
	}
	password, _ := u.Password()
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(u.Username()+":"+password))
}

// origin is what credentials are bound to.
func origin(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	return u.Scheme + "://" + strings.ToLower(u.Hostname()) + ":" + port
}

// authorize adds the credentials of the index at whose origin the request goes, and below whose path where two share one.
func (u Upstream) authorize(r *http.Request) {
	best, auth := -1, ""
	for _, b := range u.Bases {
		if origin(b.URL) != origin(r.URL) {
			continue
		}
		fit := 0
		if strings.HasPrefix(r.URL.Path, b.URL.Path) {
			fit = len(b.URL.Path)
		}
		if fit > best {
			best, auth = fit, b.auth
		}
	}
	if auth != "" {
		r.Header.Set("Authorization", auth)
	}
}

// owns says that a host is one of the index's own, wherever its address lies.
func (u Upstream) owns(v *url.URL) bool {
	for _, b := range u.Bases {
		if origin(b.URL) == origin(v) {
			return true
		}
	}
	return false
}
