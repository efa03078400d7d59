package image

import (
	"cmp"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"time"
)

// A tree is a layer as it will be, in memory but for the files' content. It is put together from a stream that nobody
// trusts, so no path of it ever is one of the host's.
type tree struct {
	root    *entry
	below   *below // the layers under this one; nil for none
	bounds  Bounds
	entries int
	meta    int64  // bytes of names, link targets and attributes
	links   int64  // bytes of content that hard links double
	share   *share // of the disk
	weight  int64  // bytes of memory
	memory  *share
}

// entry is one file, directory or link of a tree.
type entry struct {
	kind     kind
	mode     fs.FileMode // permissions and the sticky bit
	uid, gid int
	mtime    time.Time
	target   string // of a symbolic link
	content  extent // of a file
	xattrs   map[string]string
	children map[string]*entry // of a directory
	opaque   bool              // a directory that hides what is below it
	implied  bool              // a directory that the stream has not told of, yet
}

type kind byte

const (
	directory kind = iota
	regular
	symlink
	fifo
	whiteout // hides what is below it
)

// extent is where a file's content lies in the spool.
type extent struct{ offset, size int64 }

const (
	maxName   = 255  // of one part of a path, as in EROFS and ext4
	maxPath   = 4095 // Source: PATH_MAX
	maxDepth  = 256
	maxFollow = 40 // symbolic links on the way to one place, as the kernel has it
)

func newTree(bounds Bounds, below *below) *tree {
	t := &tree{bounds: bounds, below: below}
	t.root = t.imply("")
	return t
}

// broken is what is wrong with a stream; the client reads it.
type broken struct{ reason string }

func (b *broken) Error() string { return b.reason }

func brokenf(format string, args ...any) error { return &broken{fmt.Sprintf(format, args...)} }

// split takes a name of the stream apart. Absolute names mean the tree's root; a name that would leave it is refused.
func split(name string) ([]string, error) {
	if len(name) > maxPath {
		return nil, brokenf("a name of %d bytes", len(name))
	}
	var parts []string
	for _, p := range strings.Split(name, "/") {
		switch {
		case p == "" || p == ".":
		case p == "..":
			return nil, brokenf("%.100q leaves the layer", name)
		case len(p) > maxName || strings.ContainsRune(p, 0):
			return nil, brokenf("%.100q has a part that is no file's name", name)
		default:
			parts = append(parts, p)
		}
	}
	if len(parts) > maxDepth {
		return nil, brokenf("%.100q is %d directories deep", name, len(parts))
	}
	return parts, nil
}

// imply makes a directory that the stream has not told of: as the layers below have it.
func (t *tree) imply(at string) *entry {
	d := &entry{kind: directory, mode: 0o755, children: map[string]*entry{}, implied: true}
	if s, ok := t.below.lookup(at); ok && s.kind == directory {
		d.mode, d.uid, d.gid, d.mtime, d.xattrs = s.mode, s.uid, s.gid, s.mtime, s.xattrs
	}
	return d
}

// parent walks to a directory, making it where it is missing, and answers it with its true place. A link on the way,
// here or in the layers below, is followed inside the tree, as it would be if the layer were unpacked there.
func (t *tree) parent(parts []string) (*entry, []string, error) {
	d, at := t.root, []string(nil)
	for follows := 0; len(parts) > 0; {
		name := parts[0]
		next := d.children[name]
		link := ""
		switch {
		case next != nil && next.kind == symlink:
			link = next.target
		case next == nil && !d.opaque:
			if s, ok := t.below.lookup(path.Join(append(slices.Clone(at), name)...)); ok && s.kind == symlink {
				link = s.target
			}
		}
		if link != "" {
			if follows++; follows > maxFollow {
				return nil, nil, brokenf("%.100q is behind too many links", strings.Join(parts, "/"))
			}
			parts, at = resolve(at, link, parts[1:]), nil
			if len(parts) > maxDepth {
				return nil, nil, brokenf("%.100q is %d directories deep", strings.Join(parts, "/"), len(parts))
			}
			d = t.root
			continue
		}
		at, parts = append(at, name), parts[1:]
		if next == nil || next.kind != directory {
			hides := next != nil && next.kind == whiteout
			next = t.imply(path.Join(at...))
			next.opaque = hides
			if err := cmp.Or(t.count(), t.weigh(at, "", next)); err != nil {
				return nil, nil, err
			}
			d.children[strings.Clone(name)] = next // name may be a small part of what a header has
		}
		d = next
	}
	return d, at, nil
}

// resolve gives the path of what lies at rest behind a link in the directory at; it never leaves the root.
func resolve(at []string, link string, rest []string) []string {
	where := slices.Clone(at)
	if strings.HasPrefix(link, "/") {
		where = nil
	}
	for _, p := range strings.Split(link, "/") {
		switch p {
		case "", ".":
		case "..":
			where = where[:max(0, len(where)-1)]
		default:
			where = append(where, p)
		}
	}
	return append(where, rest...)
}

// count counts an entry.
func (t *tree) count() error {
	if t.entries++; t.entries > t.bounds.Files {
		return brokenf("more than %d files", t.bounds.Files)
	}
	return t.hold(perEntry)
}

// weigh counts what is held in memory of an entry in the directory at: its whole path, since the writer has it so.
func (t *tree) weigh(at []string, name string, e *entry) error {
	n := len(name) + len(e.target)
	for _, p := range at {
		n += len(p) + 1
	}
	for k, v := range e.xattrs {
		n += len(k) + len(v)
	}
	if t.meta += int64(n); t.meta > t.bounds.Meta {
		return brokenf("more than %d KiB of names, link targets and attributes", t.bounds.Meta>>10)
	}
	return t.hold(n)
}

// hold counts memory. Error: Capacity.
func (t *tree) hold(n int) error {
	if t.weight += int64(n); t.weight <= freely {
		return nil
	}
	return t.memory.add(int64(n), 0)
}

// put places an entry; the last of a name counts, and a directory goes on with what it has.
func (t *tree) put(name string, e *entry) error {
	parts, err := split(name)
	if err != nil {
		return err
	}
	if err := t.count(); err != nil {
		return err
	}
	if len(parts) == 0 {
		if err := t.weigh(nil, "", e); err != nil {
			return err
		}
		if e.kind == directory {
			e.children, e.opaque = t.root.children, t.root.opaque
			*t.root = *e
		}
		return nil
	}
	d, at, err := t.parent(parts[:len(parts)-1])
	if err != nil {
		return err
	}
	last := parts[len(parts)-1]
	if err := t.weigh(at, last, e); err != nil {
		return err
	}
	have := d.children[last]
	switch {
	case e.kind == whiteout && have != nil: // it hides what is below alone
		have.opaque = have.opaque || have.kind == directory
		return nil
	case e.kind == directory && have != nil && have.kind == directory:
		e.children, e.opaque = have.children, have.opaque
		*have = *e
		return nil
	case e.kind == directory:
		e.children = map[string]*entry{}
		e.opaque = have != nil && have.kind == whiteout
	}
	d.children[strings.Clone(last)] = e
	return nil
}

// link makes name another name of a file that the stream has told of. The layer has the content twice.
func (t *tree) link(name, target string) error {
	parts, err := split(target)
	if err != nil || len(parts) == 0 {
		return cmp.Or(err, brokenf("%.100q is a link to nothing", name))
	}
	d, _, err := t.parent(parts[:len(parts)-1])
	if err != nil {
		return err
	}
	to := d.children[parts[len(parts)-1]]
	if to == nil || to.kind == directory || to.kind == whiteout {
		return brokenf("%.100q is a link to %.100q, which is no file before it", name, target)
	}
	if t.links += to.content.size; t.links > t.bounds.Bytes {
		return brokenf("more than %d bytes", t.bounds.Bytes)
	}
	if err := t.share.add(ofLinks*to.content.size, 0); err != nil {
		return err
	}
	same := *to
	same.xattrs = maps.Clone(to.xattrs)
	return t.put(name, &same)
}

// hide takes what the layers below have in a directory away.
func (t *tree) hide(dir string) error {
	parts, err := split(dir)
	if err != nil {
		return err
	}
	d, _, err := t.parent(parts)
	if err == nil {
		d.opaque = true
	}
	return err
}
