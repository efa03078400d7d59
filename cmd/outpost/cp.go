package main

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"outpost.run/outpost/client"
	"outpost.run/outpost/sandbox"
)

func cpCommand() *cobra.Command {
	var at connection
	cmd := &cobra.Command{
		Use:   "cp FROM TO",
		Short: "Copy a file or folder into a stateful sandbox, or out of it",
		Long: `Copies a file or a folder; one of FROM and TO is ID:PATH, in a stateful sandbox. A TO that is a
folder, or ends in /, is the folder to copy into; any other is the name of the copy. A - is standard
input or output: a file's bytes, and out of a sandbox a folder's as a tar archive.
With --json it prints what was copied: {"from", "to", "files", "bytes"}.`,
		Example: `  outpost cp data.csv sb_1f0c9a2b7d3e:in/
  outpost cp sb_1f0c9a2b7d3e:out ./results
  outpost cp sb_1f0c9a2b7d3e:log.txt - | grep error
  outpost cp sb_1f0c9a2b7d3e:out - | tar -tf -`,
		Args: asUsed,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := at.open()
			if err != nil {
				return err
			}
			from, there := remote(args[0])
			to, back := remote(args[1])
			x := copying{c: c, cmd: cmd}
			switch {
			case there == back:
				return wrongUsage("one of FROM and TO must be in a sandbox, as ID:PATH")
			case back:
				err = x.in(args[0], to)
			case args[1] == "-" && asJSON(cmd):
				return wrongUsage("standard output can't be both the copy (-) and JSON (--json)")
			default:
				err = x.out(from, args[1])
			}
			if err == nil && asJSON(cmd) {
				err = printJSON(cmd.OutOrStdout(), x.copied)
			}
			return err
		},
	}
	at.flags(cmd)
	cmd.ValidArgsFunction = completeCopy(&at)
	return cmd
}

// place is a path in a sandbox.
type place struct{ id, path string }

func remote(arg string) (place, bool) {
	id, name, is := strings.Cut(arg, ":")
	return place{id, name}, is && strings.HasPrefix(id, sandbox.SandboxPrefix)
}

func (p place) String() string { return p.id + ":" + p.path }

type copying struct {
	c      *client.Client
	cmd    *cobra.Command
	copied copied
}

// copied is what a copy came to, for programs.
type copied struct {
	From  string `json:"from"`
	To    string `json:"to"` // the copy's own name
	Files int    `json:"files"`
	Bytes int64  `json:"bytes"` // in the files
}

// into gives the name of a copy: of base in a folder, or the name that was given.
func into(to, base string) string {
	if to == "" || strings.HasSuffix(to, "/") {
		return path.Join(to, base)
	}
	return to
}

func (x *copying) in(from string, to place) error {
	ctx := x.cmd.Context()
	x.copied = copied{From: from, To: to.String(), Files: 1}
	if from == "-" {
		if to.path == "" || strings.HasSuffix(to.path, "/") {
			return wrongUsage("what comes from standard input needs a name, as in outpost cp - %s", place{to.id, into(to.path, "FILE")})
		}
		n := counted{x.cmd.InOrStdin(), &x.copied.Bytes}
		return x.c.PutFile(ctx, to.id, to.path, n, -1, 0)
	}
	st, err := os.Stat(from)
	if err != nil {
		return err
	}
	name := into(to.path, filepath.Base(filepath.Clean(from)))
	if name == to.path && x.c.IsFolder(ctx, to.id, name) {
		name = into(name+"/", filepath.Base(filepath.Clean(from)))
	}
	x.copied.To = place{to.id, name}.String()
	if st.IsDir() {
		return x.folderIn(ctx, from, to.id, name)
	}
	f, err := os.Open(from)
	if err != nil {
		return err
	}
	defer f.Close()
	bar := newBar(x.cmd.ErrOrStderr(), from, st.Size())
	defer bar.end()
	size := st.Size()
	if !st.Mode().IsRegular() {
		size = -1
	}
	return x.c.PutFile(ctx, to.id, name, counted{bar.reading(f), &x.copied.Bytes}, size, uint32(st.Mode().Perm()))
}

// counted counts what is read.
type counted struct {
	io.Reader
	n *int64
}

// Read implements io.Reader.
func (c counted) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	*c.n += int64(n)
	return n, err
}

func (x *copying) folderIn(ctx context.Context, from, id, name string) error {
	bar := newBar(x.cmd.ErrOrStderr(), from, -1)
	defer bar.end()
	if err := x.count(os.DirFS(from)); err != nil { // before anything is written
		return fmt.Errorf("%s: %w", from, err)
	}
	r, w := io.Pipe()
	packed := make(chan error, 1)
	go func() {
		t := tar.NewWriter(w)
		err := t.AddFS(os.DirFS(from))
		if err == nil {
			err = t.Close()
		}
		w.CloseWithError(err)
		packed <- err
	}()
	err := x.c.PutArchive(ctx, id, name, bar.reading(r))
	r.Close()
	if mine := <-packed; mine != nil && !errors.Is(mine, io.ErrClosedPipe) {
		return mine
	}
	return err
}

// count notes what a folder has.
func (x *copying) count(folder fs.FS) error {
	x.copied.Files = 0
	return fs.WalkDir(folder, ".", func(name string, d fs.DirEntry, err error) error {
		if err == nil && d.Type()&^(fs.ModeDir|fs.ModeSymlink) != 0 {
			err = fmt.Errorf("%s is no file, folder or symbolic link, and can't be copied", name)
		}
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			x.copied.Files++
			x.copied.Bytes += info.Size()
		}
		return err
	})
}

func (x *copying) out(from place, to string) error {
	ctx := x.cmd.Context()
	if from.path == "" {
		from.path = "."
	}
	x.copied = copied{From: from.String(), To: to, Files: 1}
	f, err := x.c.GetFile(ctx, from.id, from.path, 0)
	if sandbox.CodeOf(err) == sandbox.IsADirectory {
		return x.folderOut(ctx, from, to)
	}
	if err != nil {
		return err
	}
	defer f.Close()
	if to == "-" {
		_, err := io.Copy(x.cmd.OutOrStdout(), f)
		return err
	}
	bar := newBar(x.cmd.ErrOrStderr(), from.path, f.Size)
	defer bar.end()
	x.copied.To = localName(to, path.Base(from.path))
	return writeFile(x.copied.To, counted{bar.reading(f), &x.copied.Bytes}, fs.FileMode(f.Mode))
}

// localName is into for this host, where a folder that is there counts too.
func localName(to, base string) string {
	if st, err := os.Stat(to); err == nil && st.IsDir() {
		return filepath.Join(to, base)
	}
	return into(to, base)
}

// writeFile writes a file under another name first: one that did not come whole is none. Through a link it writes what that leads to, and
// into a device or a pipe as it comes.
func writeFile(name string, from io.Reader, mode fs.FileMode) error {
	if to, err := filepath.EvalSymlinks(name); err == nil {
		name = to
	}
	if st, err := os.Stat(name); err == nil && !st.Mode().IsRegular() {
		f, err := os.OpenFile(name, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		_, err = io.Copy(f, from)
		return errors.Join(err, f.Close())
	}
	draft, err := os.CreateTemp(filepath.Dir(name), ".outpost-*")
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s: there is no such folder on this host", filepath.Dir(name))
	}
	if err != nil {
		return err
	}
	defer os.Remove(draft.Name()) //nolint:errcheck // it has its name by then, or is of no use
	_, err = io.Copy(draft, from)
	if err == nil {
		err = draft.Chmod(mode & 0o777)
	}
	if err2 := draft.Close(); err == nil {
		err = err2
	}
	if err != nil {
		return err
	}
	return os.Rename(draft.Name(), name)
}

func (x *copying) folderOut(ctx context.Context, from place, to string) error {
	if path.Base(path.Clean(from.path)) == ".." {
		return wrongUsage("%s: name the folder itself, since its name is the copy's", from.path)
	}
	archive, err := x.c.GetArchive(ctx, from.id, from.path)
	if err != nil {
		return err
	}
	defer archive.Close()
	if to == "-" {
		if onTerminal(x.cmd.OutOrStdout()) {
			return wrongUsage("%s is a folder, and a terminal shows no tar archive: send it to a file or a program, as in | tar -xf -", from)
		}
		_, err := io.Copy(x.cmd.OutOrStdout(), archive)
		return err
	}
	name := localName(to, path.Base(path.Clean(from.path)))
	if err := os.MkdirAll(name, 0o755); err != nil {
		return err
	}
	root, err := os.OpenRoot(name) // what comes from a sandbox leaves the folder by no name and no link
	if err != nil {
		return err
	}
	defer root.Close()
	bar := newBar(x.cmd.ErrOrStderr(), from.path, -1)
	defer bar.end()
	x.copied.To, x.copied.Files = name, 0
	return x.unpackIn(root, tar.NewReader(bar.reading(archive)))
}

func (x *copying) unpackIn(root *os.Root, r *tar.Reader) error {
	for {
		h, err := r.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("the archive broke off: %w", err)
		}
		if err := x.unpackOne(root, h, r); err != nil {
			return fmt.Errorf("%s: %w", printable(h.Name), err)
		}
	}
}

func (x *copying) unpackOne(root *os.Root, h *tar.Header, r io.Reader) error {
	name := path.Clean(h.Name)
	if dir := path.Dir(name); dir != "." {
		if err := root.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	mode := fs.FileMode(h.Mode) & 0o777
	switch h.Typeflag {
	case tar.TypeDir:
		return root.MkdirAll(name, mode|0o700)
	case tar.TypeSymlink:
		if err := root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return root.Symlink(h.Linkname, name)
	case tar.TypeReg:
		if err := root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
		if err != nil {
			return err
		}
		n, err := io.Copy(f, r)
		x.copied.Files++
		x.copied.Bytes += n
		return errors.Join(err, f.Close())
	}
	return nil // there is nothing else in archives of the server
}
