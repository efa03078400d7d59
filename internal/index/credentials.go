package index

import (
	"encoding/base64"
	"net/url"
	"regexp"
	"strings"
)

// credentials adds what the host has for the bases that bring none.
func (h Host) credentials(u *Upstream) {
	machines := h.netrc()
	for i := range u.Bases {
		b := &u.Bases[i]
		if b.auth != "" {
			continue
		}
		switch u.Manager {
		case Npm:
			b.auth = npmAuth(h.npmrc(), b.URL)
		case Cargo:
			b.auth = h.cargoToken(b.URL)
		default: // both read it. Source: pip, "Authentication"; go help goauth
			b.auth = machines[b.URL.Hostname()]
		}
	}
}

// npmAuth is bound to an address or to one above it. Source: npm, "npmrc", "Auth related configuration".
func npmAuth(settings map[string]string, at *url.URL) string {
	for path := at.Path; ; path = path[:strings.LastIndexByte(strings.TrimSuffix(path, "/"), '/')+1] {
		for _, where := range []string{path, strings.TrimSuffix(path, "/")} {
			key := "//" + at.Host + where + ":"
			if t := settings[key+"_authToken"]; t != "" {
				return "Bearer " + t
			}
			if a := settings[key+"_auth"]; a != "" {
				return "Basic " + a
			}
			if name, secret := settings[key+"username"], settings[key+"_password"]; name != "" {
				password, _ := base64.StdEncoding.DecodeString(secret)
				return basic(url.UserPassword(name, string(password)))
			}
		}
		if path == "/" || path == "" {
			return ""
		}
	}
}

// cargoToken is the token of the registry that has this address.
func (h Host) cargoToken(at *url.URL) string {
	known, err := h.cargoFile("config.toml", "config")
	secrets, err2 := h.cargoFile("credentials.toml", "credentials")
	if err != nil || err2 != nil {
		return ""
	}
	for name, r := range known.Registries {
		b, err := parseBase(Cargo, strings.TrimPrefix(r.Index, "sparse+"))
		if err != nil || b.URL.String() != at.String() {
			continue
		}
		token := r.Token
		set(&token, secrets.Registries[name].Token)
		set(&token, h.Getenv("CARGO_REGISTRIES_"+strings.ToUpper(strings.ReplaceAll(name, "-", "_"))+"_TOKEN"))
		return token
	}
	return ""
}

var netrcWord = regexp.MustCompile(`\S+`)

// netrc maps a machine to the header of its login.
func (h Host) netrc() map[string]string {
	file := h.Home + "/.netrc"
	set(&file, h.Getenv("NETRC"))
	words := netrcWord.FindAllString(string(h.read(file)), -1)
	all := map[string]string{}
	var machine, login string
	for i := 0; i+1 < len(words); i += 2 {
		switch words[i] {
		case "machine":
			machine, login = words[i+1], ""
		case "login":
			login = words[i+1]
		case "password":
			if machine != "" {
				all[machine] = basic(url.UserPassword(login, words[i+1]))
			}
		default: // "default" takes no word, a macro many: what follows is not for a machine that we know
			machine = ""
			i--
		}
	}
	return all
}
