package deps

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/erofs/go-erofs"

	"outpost.run/outpost/internal/image"
	"outpost.run/outpost/sandbox"
)

const aptPrefix = "apt:"

// Split parts Debian packages from a manager's own.
func Split(deps []string) (apt, others []string) {
	for _, d := range deps {
		if name, ok := strings.CutPrefix(d, aptPrefix); ok {
			apt = append(apt, name)
		} else {
			others = append(others, d)
		}
	}
	return apt, others
}

// Debian gives the image with Debian packages added, and what they are. packages are names, each perhaps with =version:
// that of the archive is the only one there is. Nothing of a package runs with any tenant's data, so all share the image.
//
// Errors: DepsFailed; NotSupported, the image is not made of Debian packages; those of Images.EnsureFor; ctx's.
func (in *Installer) Debian(ctx context.Context, namespace string, img image.Image, packages []string) (with image.Image, resolved []string, err error) {
	if !strings.HasPrefix(img.Ref, "deb:") {
		return with, nil, sandbox.Errorf(sandbox.NotSupported, nil, "apt: packages can be added to images made of Debian packages alone (deb:): put them into your image, or leave image out")
	}
	names := make([]string, len(packages))
	for i, p := range packages {
		names[i], _, _ = strings.Cut(p, "=")
	}
	with, ready := in.Images.Get(With(img.Ref, names...))
	if !ready {
		with, err = in.Images.EnsureFor(ctx, builder(namespace), With(img.Ref, names...), nil)
		if sandbox.CodeOf(err) == sandbox.ImageNotFound {
			e, _ := errors.AsType[*sandbox.Error](err)
			return with, nil, failed(e.Message)
		}
		if err != nil {
			return with, nil, err
		}
	}
	versions, err := installed(with, names)
	if err != nil {
		return with, nil, sandbox.Errorf(sandbox.Internal, err, "the image's packages can't be read")
	}
	for i, p := range packages {
		got := versions[names[i]]
		if _, want, exact := strings.Cut(p, "="); exact && want != got {
			return with, nil, failed(fmt.Sprintf("%s is %s in the Debian archive of this server, which has no %s: leave the version out", names[i], got, want))
		}
		resolved = append(resolved, aptPrefix+names[i]+"="+got)
	}
	slices.Sort(resolved)
	return with, resolved, nil
}

// installed reads the versions of packages from the image's uppermost layer that has dpkg's database.
func installed(img image.Image, names []string) (map[string]string, error) {
	for _, layer := range slices.Backward(img.Layers) {
		versions, err := versionsIn(layer, names)
		if err == nil || !os.IsNotExist(err) {
			return versions, err
		}
	}
	return nil, os.ErrNotExist
}

func versionsIn(layer string, names []string) (map[string]string, error) {
	f, err := os.Open(layer)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	tree, err := erofs.Open(f)
	if err != nil {
		return nil, err
	}
	status, err := tree.Open("var/lib/dpkg/status")
	if err != nil {
		return nil, err
	}
	defer status.Close()
	versions, name := map[string]string{}, ""
	lines := bufio.NewScanner(status)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if v, ok := strings.CutPrefix(lines.Text(), "Package: "); ok {
			name = v
		} else if v, ok := strings.CutPrefix(lines.Text(), "Version: "); ok && slices.Contains(names, name) {
			versions[name] = v
		}
	}
	return versions, lines.Err()
}

// SettleDebian are the words that copy a layer of Debian packages over a sandbox's root: what is there already and no older
// stays, but for what tells of all packages.
func SettleDebian(at string) []string {
	return []string{"/bin/sh", "-c", `cd "$1" || exit
find . -type c | while IFS= read -r gone; do rm -rf "/$gone"; done
find . -mindepth 1 -maxdepth 1 ! -type c -exec cp -Ru --preserve=mode,timestamps,links {} / \; || exit
for made in etc/ld.so.cache etc/alternatives var/lib/dpkg; do
	[ ! -e "$made" ] || cp -R --preserve=mode,timestamps,links "$made" "/${made%/*}/" || exit
done`, "sh", at}
}
