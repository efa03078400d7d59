package guestos_test

import (
	"bytes"
	"debug/elf"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"outpost.run/outpost/internal/guestos"
)

func TestAGuestsKernelComesFromDebian(t *testing.T) {
	if testing.Short() {
		t.Skip("fetches a kernel's package")
	}
	m := guestos.NewMaker(guestos.Options{Dir: t.TempDir(), Init: []byte("init")})
	if _, is := m.Found(); is {
		t.Error("found before it was made")
	}
	s, err := m.Get(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	f, err := elf.Open(s.Kernel)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if f.Machine != elf.EM_X86_64 || f.Entry == 0 {
		t.Errorf("the kernel is for %s, entered at %#x", f.Machine, f.Entry)
	}
	initrd, err := os.ReadFile(s.Initrd)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"init", "modules/order", "modules/vsock.ko", "modules/erofs.ko"} {
		if !bytes.Contains(initrd, []byte(name)) {
			t.Errorf("the initramfs has no %s", name)
		}
	}
	if !strings.HasPrefix(s.Release, "6.") || !strings.HasSuffix(s.Build, s.Release) {
		t.Errorf("%+v", s)
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(filepath.Dir(s.Kernel)), "new-*")); len(left) > 0 {
		t.Errorf("half made: %v", left)
	}
}
