package guest

import (
	"io"
	"io/fs"
	"path"
	"strings"

	"outpost.run/outpost/internal/agent"
	"outpost.run/outpost/sandbox"
)

// maxEntries bounds the work that an exec's patterns make: how many names of directories are looked at.
const maxEntries = 100_000

// collection is what an exec is to bring back from its machine.
type collection struct {
	who      user
	patterns []string
	dir      string // the working directory
}

// send sends the files that the patterns match; what is missing, unreadable or no regular file is left out.
func (x collection) send(conn io.Writer) error {
	sent := map[string]bool{}
	total := int64(0)
	tree := &rootFS{left: maxEntries}
	for _, pattern := range x.patterns {
		var names []string
		err := as(x.who, func() error {
			names = match(tree, pattern, x.dir)
			return nil
		})
		if err == nil && tree.left <= 0 {
			err = refuse(sandbox.CollectTooLarge, "collect", "%s looks through over %d files: collect fewer, or pack them", pattern, maxEntries)
		}
		if err != nil {
			return err
		}
		for _, name := range names {
			if sent[absolute(name, x.dir)] {
				continue
			}
			sent[absolute(name, x.dir)] = true
			if total, err = x.sendFile(conn, name, total); err != nil {
				return err
			}
		}
	}
	return nil
}

// match gives the paths that a pattern means, spelled as the client spelled it: relative where it was relative.
func match(tree fs.FS, pattern, dir string) []string {
	if !strings.ContainsAny(pattern, `*?[\`) {
		return []string{pattern}
	}
	full := strings.TrimPrefix(absolute(pattern, dir), "/")
	found, err := fs.Glob(tree, full)
	if err != nil {
		return nil
	}
	prefix := ""
	if !path.IsAbs(pattern) {
		prefix = strings.TrimPrefix(dir, "/") + "/"
	}
	var names []string
	for _, f := range found {
		if path.IsAbs(pattern) {
			names = append(names, "/"+f)
		} else if rel, ok := strings.CutPrefix(f, prefix); ok {
			names = append(names, rel)
		}
	}
	return names
}

func (x collection) sendFile(conn io.Writer, name string, total int64) (int64, error) {
	var content []byte
	over := false
	err := as(x.who, func() error {
		f, err := openRegular(absolute(name, x.dir))
		if err != nil {
			return nil // left out
		}
		defer f.Close()
		b, err := io.ReadAll(io.LimitReader(f, agent.MaxCollect-total+1))
		if err != nil {
			return nil
		}
		content = b
		if content == nil {
			content = []byte{}
		}
		over = int64(len(b)) > agent.MaxCollect-total
		return nil
	})
	if err != nil || content == nil {
		return total, err
	}
	if over {
		return total, refuse(sandbox.CollectTooLarge, "collect", "the files to collect are over 8 MiB together: collect fewer, or pack them")
	}
	if err := agent.WriteJSON(conn, agent.KindFile, agent.FileHeader{Path: name, Size: int64(len(content))}); err != nil {
		return total, err
	}
	total += int64(len(content))
	for len(content) > 0 {
		n := min(len(content), agent.MaxData)
		if err := agent.WriteFrame(conn, agent.KindData, content[:n]); err != nil {
			return total, err
		}
		content = content[n:]
	}
	return total, nil
}
