package container

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"outpost.run/outpost/internal/host"
)

// imageMounts are the image layers mounted in the daemon's namespace, each once, those of the last uses. They lie below
// dir: before Linux 6.15 only a tree that is attached can be cloned for a machine. Source: open_tree(2).
type imageMounts struct {
	kernel *host.Kernel
	dir    string
	mu     sync.Mutex
	trees  map[string]*imageMount
	uses   int
}

type imageMount struct {
	tree *os.File
	at   string
	used int // the number of its last use
}

// mountsMost is how many are kept: every set of dependencies is a layer of its own.
const mountsMost = 512

// clone gives a detached tree of a layer, whose ids are those of the user namespace.
func (m *imageMounts) clone(layer string, userns *os.File) (*os.File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	t, ok := m.trees[layer]
	if !ok {
		made, err := m.attach(layer)
		if err != nil {
			return nil, fmt.Errorf("mount image layer: %w", err)
		}
		if m.trees == nil {
			m.trees = map[string]*imageMount{}
		}
		t = &made
		m.trees[layer] = t
		m.bound()
	}
	m.uses++
	t.used = m.uses
	return m.kernel.CloneIDMapped(t.tree, userns)
}

// bound lets go of the layer that was not used for longest where there are too many; machines that use it keep it.
func (m *imageMounts) bound() {
	if len(m.trees) <= mountsMost {
		return
	}
	oldest, which := m.uses+1, ""
	for layer, t := range m.trees {
		if t.used > 0 && t.used < oldest {
			oldest, which = t.used, layer
		}
	}
	if t := m.trees[which]; t != nil {
		m.release(t)
		delete(m.trees, which)
	}
}

func (m *imageMounts) attach(layer string) (mount imageMount, err error) {
	tree, err := m.kernel.MountImage(layer)
	if err != nil {
		return mount, err
	}
	at, err := os.MkdirTemp(m.dir, "layer-")
	if err == nil {
		if err = m.kernel.Attach(tree, at); err != nil {
			os.Remove(at)
		}
	}
	if err != nil {
		tree.Close()
	}
	return imageMount{tree: tree, at: at}, err
}

// drop lets go of layers whose files are gone, so that their space is free when the last machine that uses one ends.
func (m *imageMounts) drop() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for layer, t := range m.trees {
		if _, err := os.Stat(layer); errors.Is(err, os.ErrNotExist) {
			m.release(t)
			delete(m.trees, layer)
		}
	}
}

// forget lets go of one layer: what is behind its name will be another.
func (m *imageMounts) forget(layer string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if t := m.trees[layer]; t != nil {
		m.release(t)
		delete(m.trees, layer)
	}
}

func (m *imageMounts) release(t *imageMount) {
	t.tree.Close()
	if m.kernel.Detach(t.at) == nil {
		os.Remove(t.at)
	}
}

// close lets go of the layers; machines that use one keep it.
func (m *imageMounts) close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, t := range m.trees {
		m.release(t)
	}
	m.trees = nil
}
