package index

import (
	"encoding/base64"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/BurntSushi/toml"
	"gopkg.in/ini.v1"

	"outpost.run/outpost/sandbox"
)

// Host is where the settings of a host's package managers are read.
type Host struct {
	Root   string                      // "" but in tests
	Home   string                      // of the user whose settings count
	Getenv func(string) string         // os.Getenv
	Ask    func(name ...string) string // what a program of the host prints, "" for none; nil: none is asked
}

// Upstream is the index of a manager: the operator's word (configured, "" for none), else the host's own settings; Empty
// where neither says anything. The host's credentials for that index come along.
//
// Error: NotSupported, with what mends it.
func (h Host) Upstream(m Manager, configured string) (Upstream, error) {
	u := Upstream{Manager: m}
	var err error
	switch {
	case configured != "":
		u, err = Parse(m, configured)
	case m == Pip:
		err = h.pip(&u)
	case m == Npm:
		err = h.npm(&u)
	case m == Go:
		err = h.goProxy(&u)
	case m == Cargo:
		err = h.cargo(&u)
	}
	if err != nil {
		return u, err
	}
	h.credentials(&u)
	return u, nil
}

// Credentials gives an upstream that was found elsewhere what the host has for it.
func (h Host) Credentials(u Upstream) Upstream {
	h.credentials(&u)
	return u
}

func (h Host) read(path string) []byte {
	b, err := os.ReadFile(filepath.Join(h.Root, path))
	if err != nil {
		return nil
	}
	return b
}

func (h Host) ini(path string) *ini.File {
	f, err := ini.LoadSources(ini.LoadOptions{AllowPythonMultilineValues: true, KeyValueDelimiters: "=", IgnoreInlineComment: true, Loose: true, SkipUnrecognizableLines: true}, h.read(path))
	if err != nil {
		return ini.Empty()
	}
	return f
}

func (h Host) unreadable(m Manager) error {
	return sandbox.Errorf(sandbox.NotSupported, nil, "the %s settings of this server can't be read: the operator can mend them or set deps.%s", m, keys[m])
}

// pip's order: the machine's file, the user's two, the one that is named, the environment. Source: pip, "Configuration".
func (h Host) pip(u *Upstream) error {
	index, extra := "", ""
	files := []string{"/etc/pip.conf", "/etc/xdg/pip/pip.conf", h.Home + "/.pip/pip.conf", h.Home + "/.config/pip/pip.conf"}
	if named := h.Getenv("PIP_CONFIG_FILE"); named != "" {
		files = append(files, named)
	}
	for _, file := range files {
		f := h.ini(file)
		for _, section := range []string{"global", "install"} {
			set(&index, f.Section(section).Key("index-url").String())
			set(&extra, f.Section(section).Key("extra-index-url").String())
		}
	}
	set(&index, h.Getenv("PIP_INDEX_URL"))
	set(&extra, h.Getenv("PIP_EXTRA_INDEX_URL"))
	all := strings.Fields(extra)
	if index != "" {
		all = append([]string{index}, all...)
	}
	if index == "" && len(all) > 0 {
		return sandbox.Errorf(sandbox.NotSupported, nil, "the pip settings of this server add an index to pip's own without naming that: the operator can set deps.pip_index")
	}
	return u.add(all...)
}

func set(to *string, value string) {
	if value != "" {
		*to = value
	}
}

func (u *Upstream) add(addresses ...string) error {
	for _, a := range addresses {
		b, err := parseBase(u.Manager, a)
		if err != nil {
			return err
		}
		u.Bases = append(u.Bases, b)
	}
	return nil
}

// npmrc is what npm's files and environment say, later ones over earlier ones. Source: npm, "npmrc".
func (h Host) npmrc() map[string]string {
	all := map[string]string{}
	user := h.Home + "/.npmrc"
	set(&user, h.Getenv("NPM_CONFIG_USERCONFIG"))
	set(&user, h.Getenv("npm_config_userconfig"))
	for _, file := range []string{"/usr/etc/npmrc", "/usr/local/etc/npmrc", "/etc/npmrc", user} {
		for _, k := range h.ini(file).Section("").Keys() {
			all[k.Name()] = os.Expand(strings.ReplaceAll(k.Value(), "$$", "$"), func(name string) string { return h.Getenv(name) })
		}
	}
	for _, name := range []string{"NPM_CONFIG_REGISTRY", "npm_config_registry"} {
		if v := h.Getenv(name); v != "" {
			all["registry"] = v
		}
	}
	return all
}

func (h Host) npm(u *Upstream) error {
	settings := h.npmrc()
	if r := settings["registry"]; r != "" {
		if err := u.add(r); err != nil {
			return err
		}
	}
	for key, value := range settings {
		if scope, ok := strings.CutSuffix(key, ":registry"); ok && strings.HasPrefix(scope, "@") {
			b, err := parseBase(Npm, value)
			if err != nil {
				return err
			}
			b.Scope = scope
			u.Bases = append(u.Bases, b)
		}
	}
	return nil
}

func (h Host) goProxy(u *Upstream) error {
	if sum := strings.Fields(h.goEnv("GOSUMDB")); len(sum) > 0 && sum[0] != "off" {
		u.SumDB, _, _ = strings.Cut(sum[0], "+")
	}
	list := h.goEnv("GOPROXY")
	if list == "" && h.Ask != nil {
		list = h.Ask("go", "env", "GOPROXY")
	}
	if list == "" {
		return nil
	}
	return u.parseGo(list)
}

// goEnv is a setting of the environment or of go's own file. Source: go help environment.
func (h Host) goEnv(name string) string {
	value := h.Getenv(name)
	if value != "" {
		return value
	}
	file := h.Home + "/.config/go/env"
	set(&file, h.Getenv("GOENV"))
	for line := range strings.Lines(string(h.read(file))) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), name+"="); ok {
			value = v
		}
	}
	return value
}

// GoSums are the host's settings of how modules' sums are checked: what is private to the host no public database knows.
func (h Host) GoSums() (env [][2]string) {
	none := h.goEnv("GOPRIVATE")
	set(&none, h.goEnv("GONOSUMDB"))
	for name, value := range map[string]string{"GONOSUMDB": none, "GOSUMDB": h.goEnv("GOSUMDB")} {
		if value != "" {
			env = append(env, [2]string{name, value})
		}
	}
	return env
}

// cargoConfig is the part of cargo's config.toml that says where crates come from. Source: The Cargo Book, "Source Replacement".
type cargoConfig struct {
	Source map[string]struct {
		ReplaceWith string `toml:"replace-with"`
		Registry    string
		Directory   string
		LocalRepo   string `toml:"local-registry"`
	}
	Registries map[string]struct {
		Index string
		Token string
	}
	Registry struct{ Token string }
}

func (h Host) cargoHome() string {
	if dir := h.Getenv("CARGO_HOME"); dir != "" {
		return dir
	}
	return h.Home + "/.cargo"
}

func (h Host) cargo(u *Upstream) error {
	c, err := h.cargoFile("config.toml", "config")
	if err != nil {
		return err
	}
	name := "crates-io"
	for range 10 { // a ring of replacements has no end
		s := c.Source[name]
		if s.ReplaceWith == "" {
			break
		}
		name = s.ReplaceWith
	}
	if name == "crates-io" {
		return nil
	}
	index := c.Source[name].Registry
	set(&index, c.Registries[name].Index)
	if !strings.HasPrefix(index, "sparse+") {
		return sandbox.Errorf(sandbox.NotSupported, nil,
			"the cargo settings of this server replace the crates' source by one that is no sparse index: the operator can set deps.cargo_index")
	}
	return u.add(strings.TrimPrefix(index, "sparse+"))
}

func (h Host) cargoFile(names ...string) (cargoConfig, error) {
	var c cargoConfig
	for _, name := range names {
		if b := h.read(filepath.Join(h.cargoHome(), name)); b != nil {
			if toml.Unmarshal(b, &c) != nil {
				return c, h.unreadable(Cargo)
			}
			break
		}
	}
	return c, nil
}

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
