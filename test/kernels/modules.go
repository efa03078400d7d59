package main

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

	"github.com/ulikunitz/xz"
)

// module is one kernel module, decompressed, by its name without folder and suffix.
type module struct {
	name string
	data []byte
}

// closure gives the wanted modules and all that they need, each after what it needs. What is built into the kernel is
// left out; what is neither a module nor built in is an error. The needs are read from the modules themselves: a
// package's modules.dep is made when it is installed, and this one never is.
func (k *kernel) closure(wanted []string) ([]module, error) {
	text, err := os.ReadFile(filepath.Join(k.modules, "modules.builtin"))
	if err != nil {
		return nil, err
	}
	builtin := strings.Fields(string(text))
	pathOf := map[string]string{}
	err = filepath.WalkDir(k.modules, func(path string, d fs.DirEntry, err error) error {
		if err == nil && strings.Contains(d.Name(), ".ko") {
			pathOf[moduleName(path)] = path
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	var order []module
	seen := map[string]bool{}
	var visit func(name string) error
	visit = func(name string) error {
		if seen[name] {
			return nil
		}
		seen[name] = true
		path, ok := pathOf[name]
		if !ok {
			if slices.ContainsFunc(builtin, func(p string) bool { return moduleName(p) == name }) {
				return nil
			}
			return fmt.Errorf("kernel %s has no module %s", k.release, name)
		}
		data, err := readModule(path)
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
		order = append(order, module{name, data})
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
	if !strings.HasSuffix(path, ".xz") {
		return io.ReadAll(f)
	}
	r, err := xz.NewReader(f)
	if err != nil {
		return nil, fmt.Errorf("module %s: %w", filepath.Base(path), err)
	}
	return io.ReadAll(r)
}
