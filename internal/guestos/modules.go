package guestos

import (
	"bytes"
	"debug/elf"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// Module is one kernel module, decompressed, by its name without folder and suffix.
type Module struct {
	Name string
	Data []byte
}

// Source is where the modules of one kernel are.
type Source struct {
	Release string
	builtin []string
	read    map[string]func() ([]byte, error) // by name
}

// Folder is the lib/modules/RELEASE of an unpacked package.
func Folder(dir, release string) (*Source, error) {
	text, err := os.ReadFile(filepath.Join(dir, "modules.builtin"))
	if err != nil {
		return nil, err
	}
	s := &Source{Release: release, builtin: strings.Fields(string(text)), read: map[string]func() ([]byte, error){}}
	return s, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && strings.Contains(d.Name(), ".ko") {
			s.read[moduleName(path)] = func() ([]byte, error) { return readModule(path) }
		}
		return err
	})
}

// Closure gives the wanted modules and all that they need, each after what it needs. What is built into the kernel is
// left out; what is neither a module nor built in is an error. The needs are read from the modules themselves: a
// package's modules.dep is made when it is installed, and this one never is.
func (s *Source) Closure(wanted []string) ([]Module, error) {
	var order []Module
	seen := map[string]bool{}
	var visit func(name string) error
	visit = func(name string) error {
		if seen[name] {
			return nil
		}
		seen[name] = true
		read, ok := s.read[name]
		if !ok {
			if slices.ContainsFunc(s.builtin, func(p string) bool { return moduleName(p) == name }) {
				return nil
			}
			return fmt.Errorf("kernel %s has no module %s", s.Release, name)
		}
		data, err := read()
		if err != nil {
			return err
		}
		needs, err := needsOf(data)
		if err != nil {
			return fmt.Errorf("module %s: %w", name, err)
		}
		for _, n := range needs {
			if err := visit(n); err != nil {
				return err
			}
		}
		order = append(order, Module{name, data})
		return nil
	}
	for _, w := range wanted {
		if err := visit(w); err != nil {
			return nil, err
		}
	}
	return order, nil
}

// needsOf reads the names after depends= in a module's .modinfo.
func needsOf(data []byte) ([]string, error) {
	f, err := elf.NewFile(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	section := f.Section(".modinfo")
	if section == nil {
		return nil, fmt.Errorf("no .modinfo")
	}
	info, err := section.Data()
	if err != nil {
		return nil, err
	}
	var needs []string
	for field := range strings.SplitSeq(string(info), "\x00") {
		if names, ok := strings.CutPrefix(field, "depends="); ok {
			for name := range strings.FieldsFuncSeq(names, func(r rune) bool { return r == ',' }) {
				needs = append(needs, moduleName(name))
			}
		}
	}
	return needs, nil
}

// moduleName gives virtio_pci for kernel/drivers/virtio/virtio-pci.ko.xz.
func moduleName(path string) string {
	name, _, _ := strings.Cut(filepath.Base(path), ".ko")
	return strings.ReplaceAll(name, "-", "_")
}

func readModule(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return plainModule(path, f)
}

// plainModule decompresses a module, as its name says.
func plainModule(name string, r io.Reader) ([]byte, error) {
	var err error
	switch filepath.Ext(name) {
	case ".xz":
		r, err = xz.NewReader(r)
	case ".zst":
		r, err = zstd.NewReader(r)
	}
	if err != nil {
		return nil, fmt.Errorf("module %s: %w", filepath.Base(name), err)
	}
	return io.ReadAll(r)
}
