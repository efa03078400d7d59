package disk

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
)

// Volumes are the persistent disks of sandboxes: ext4 images with a journal, named by their sandbox, which is all that
// has to be known of them after a crash.
type Volumes struct {
	dir   string
	maker *Maker
}

// NewVolumes keeps them in dir.
func NewVolumes(dir string, maker *Maker) (*Volumes, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	maker.budget.watch(dir)
	return &Volumes{dir, maker}, nil
}

// Make makes a blank disk. Errors: those of Maker.Make.
func (v *Volumes) Make(ctx context.Context, sandboxID string, sizeGB int) error {
	return v.maker.Make(ctx, v.Path(sandboxID), sizeGB<<10, true)
}

// Path is where a sandbox's disk lies.
func (v *Volumes) Path(sandboxID string) string { return filepath.Join(v.dir, sandboxID+".img") }

// Remove is nil for what is gone.
func (v *Volumes) Remove(sandboxID string) error {
	err := os.Remove(v.Path(sandboxID))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// List names the sandboxes that have a disk here.
func (v *Volumes) List() ([]string, error) {
	entries, err := os.ReadDir(v.dir)
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, e := range entries {
		if id, is := strings.CutSuffix(e.Name(), ".img"); is {
			ids = append(ids, id)
		}
	}
	return ids, nil
}
