package image

import (
	"path"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Config is what an image says about running programs in it.
type Config struct {
	User       string
	Env        [][2]string
	WorkingDir string
	NoSandbox  bool `json:",omitempty"` // it has no user of the name sandbox
}

const (
	maxEnvPairs = 256 // as of a sandbox
	maxEnvBytes = 64 << 10
)

// configOf takes over what can be meant; the rest of a foreign image's words is left out.
func (s *Store) configOf(c v1.Config, layers []string) Config {
	out := Config{User: c.User, NoSandbox: !s.hasUser(layers, sandboxUser)}
	if len(c.User) > 128 || strings.ContainsRune(c.User, 0) {
		out.User = ""
	}
	if dir := c.WorkingDir; path.IsAbs(dir) && path.Clean(dir) == dir && dir != "/" && len(dir) < maxPath && !strings.ContainsRune(dir, 0) {
		out.WorkingDir = dir
	}
	size := 0
	for _, pair := range c.Env {
		key, value, ok := strings.Cut(pair, "=")
		size += len(pair)
		if ok && key != "" && !strings.ContainsRune(pair, 0) && len(out.Env) < maxEnvPairs && size <= maxEnvBytes {
			out.Env = append(out.Env, [2]string{key, value})
		}
	}
	return out
}

// hasUser looks into an image's passwd.
func (s *Store) hasUser(layers []string, name string) bool {
	const most = 1 << 20
	for _, l := range slices.Backward(layers) {
		b, err := s.readFromLayer(l, "etc/passwd", most)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(b)) {
			if f := strings.Split(line, ":"); len(f) == 7 && f[0] == name && strings.Trim(f[2], "0") != "" { // not by another name root
				return true
			}
		}
		return false
	}
	return false
}
