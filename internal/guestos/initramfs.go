package guestos

import (
	"bytes"
	"fmt"
	"io"

	"github.com/cavaliergopher/cpio"
)

// WriteInitramfs packs an init and the modules, with a file that says in which order they are loaded, and empty folders.
func WriteInitramfs(w io.Writer, init []byte, mods []Module, folders ...string) error {
	archive := cpio.NewWriter(w)
	var err error
	add := func(name string, mode cpio.FileMode, data []byte) {
		if err != nil {
			return
		}
		if err = archive.WriteHeader(&cpio.Header{Name: name, Mode: mode, Size: int64(len(data))}); err == nil {
			_, err = archive.Write(data)
		}
	}
	for _, d := range append([]string{"dev", "modules"}, folders...) {
		add(d, cpio.TypeDir|0o755, nil)
	}
	add("init", cpio.TypeReg|0o755, init)
	var order bytes.Buffer
	for _, m := range mods {
		add("modules/"+m.Name+".ko", cpio.TypeReg|0o644, m.Data)
		fmt.Fprintln(&order, m.Name)
	}
	add("modules/order", cpio.TypeReg|0o644, order.Bytes())
	if err != nil {
		return fmt.Errorf("write the initramfs: %w", err)
	}
	return archive.Close()
}
