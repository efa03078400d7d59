package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"
	"time"
)

// goCache is where an image with the go command has its standard library compiled, as a cache of the command's, with
// importcfg, which names the packages' files for the compiler and the linker themselves (see node's compile-go.sh). It is
// root's, so that nobody puts there what others take; since go wants to write to its cache, each user has one of its own
// whose entries are links to these.
const goCache = "/var/cache/go-build"

// evergreen is the time of files that must look used and unchanged for good: the go command touches an entry of its
// cache that is older than an hour, which would copy it up into each machine's disk, and drops one older than five days.
// Source: cmd/go/internal/cache, mtimeInterval and trimLimit.
var evergreen = time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)

// golang compiles the standard library into the image's cache, so that a program's compilation is its own alone.
func golang(ctx context.Context, root *os.Root, run runner) error {
	if !present(root, "usr/bin/go") {
		return nil
	}
	const home = "tmp/go-home"
	err := errors.Join(makeDir(root, goCache[1:], 0o755, 0, 0), writeFile(root, home+"/.config/go/telemetry/mode", "off", 0o644))
	if err != nil {
		return err
	}
	// Where it lies go would learn from /proc, which is not there.
	const build = `GOROOT=$(dirname "$(dirname "$(readlink -f /usr/bin/go)")") && export GOROOT && go build std &&
		exec go list -export -f '{{if .Export}}packagefile {{.ImportPath}}={{.Export}}{{end}}' std >$GOCACHE/importcfg`
	err = run(ctx, "/usr/bin/env", "HOME=/"+home, "GOCACHE="+goCache, "GOTOOLCHAIN=local", "GOPROXY=off", "/bin/sh", "-c", build)
	if err := errors.Join(err, root.RemoveAll(home), root.RemoveAll(goCache[1:]+"/trim.txt")); err != nil {
		return err
	}
	users := []goUser{{"root", 0}, {sandboxHome[1:], sandboxID}}
	for _, u := range users {
		if err := errors.Join(makeDir(root, u.home+"/.cache", 0o755, u.id, u.id), makeDir(root, u.cache(), 0o755, u.id, u.id)); err != nil {
			return err
		}
	}
	return fs.WalkDir(root.FS(), goCache[1:], func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if strings.HasSuffix(name, "-a") && !d.IsDir() {
			if err := timeless(root, name); err != nil {
				return fmt.Errorf("%s: %w", path.Base(name), err)
			}
		}
		for _, u := range users {
			if err := u.link(root, name, d); err != nil {
				return err
			}
		}
		return root.Chtimes(name, evergreen, evergreen)
	})
}

// goUser has a cache of its own in its home.
type goUser struct {
	home string
	id   int
}

func (u goUser) cache() string { return u.home + "/.cache/go-build" }

// link gives the user's cache one entry of the image's.
func (u goUser) link(root *os.Root, name string, d fs.DirEntry) error {
	rel := strings.TrimPrefix(name, goCache[1:])
	switch {
	case rel == "", strings.Count(rel, "/") == 1 && !d.IsDir(): // importcfg and README
		return nil
	case d.IsDir():
		return makeDir(root, u.cache()+rel, 0o755, u.id, u.id)
	}
	return makeSymlink(root, "/"+name, u.cache()+rel)
}

// timeless takes the clock out of a cache entry: "v1 ACTION OUTPUT SIZE TIME\n", numbers in 20 columns. Source:
// cmd/go/internal/cache, putIndexEntry.
func timeless(root *os.Root, name string) error {
	b, err := root.ReadFile(name)
	if err != nil {
		return err
	}
	f := bytes.Fields(b)
	if len(f) != 5 || string(f[0]) != "v1" {
		return errors.New("not an entry of a go cache as it is known here")
	}
	return root.WriteFile(name, fmt.Appendf(nil, "v1 %s %s %20s %20d\n", f[1], f[2], f[3], 0), 0o644)
}
