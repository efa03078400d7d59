package image

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"outpost.run/outpost/sandbox"
)

// Package is the content of a Debian package that is no part of an image.
type Package struct {
	File   string // NAME_VERSION_ARCH.deb
	SHA256 string
	Data   []byte // its files, a plain tar
}

// FindPackage says which file of a suite a package is: the dependency of name that begins with prefix, so that a metapackage is followed.
// dir is where apt keeps its state, one for a suite.
func FindPackage(ctx context.Context, dir, suite, name, prefix string, spared []string) (Package, error) {
	a, err := openApt(ctx, suite, dir)
	if err != nil {
		return Package{}, err
	}
	if err := a.update(ctx); err != nil {
		return Package{}, err
	}
	f, err := a.find(ctx, name, prefix, spared)
	return Package{File: f.file, SHA256: f.sha256}, err
}

// FetchPackage downloads what FindPackage finds. spared are the packages that it needs when it is installed, and that nobody wants here.
func FetchPackage(ctx context.Context, dir, suite, name, prefix string, spared []string, percent func(int64)) (Package, error) {
	a, err := openApt(ctx, suite, dir)
	if err != nil {
		return Package{}, err
	}
	if err := a.update(ctx); err != nil {
		return Package{}, err
	}
	f, err := a.find(ctx, name, prefix, spared)
	if err != nil {
		return Package{}, err
	}
	if err := a.download(ctx, []string{name}, percent); err != nil {
		return Package{}, err
	}
	d, err := openDeb(a.path(f), f.sha256)
	if err != nil {
		return Package{}, err
	}
	return Package{File: f.file, SHA256: f.sha256, Data: d.data}, a.forgetDownloads()
}

// find resolves one package, spared ones being taken for installed.
func (a *apt) find(ctx context.Context, name, prefix string, spared []string) (debFile, error) {
	var installed strings.Builder
	for _, s := range spared { // a version that satisfies everyone; apt asks for no more
		fmt.Fprintf(&installed, "Package: %s\nStatus: install ok installed\nArchitecture: amd64\nVersion: 9999\nMaintainer: nobody\nDescription: none\n\n", s)
	}
	files, err := a.resolve(ctx, []byte(installed.String()), []string{name})
	if err != nil {
		return debFile{}, err
	}
	for _, f := range files {
		if strings.HasPrefix(f.file, prefix) {
			return f, nil
		}
	}
	return debFile{}, sandbox.Errorf(sandbox.Internal, nil, "package %s of Debian %s needs none that begins with %s", name, a.suite, prefix)
}

// ReadPackage reads a package file that somebody else fetched.
func ReadPackage(path string) (Package, error) {
	f, err := os.Open(path)
	if err != nil {
		return Package{}, err
	}
	defer f.Close()
	d, err := readDeb(f)
	if err != nil {
		return Package{}, fmt.Errorf("%s: %w", path, err)
	}
	return Package{File: filepath.Base(path), Data: d.data}, nil
}
