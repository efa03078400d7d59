package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"outpost.run/outpost/internal/config"
	"outpost.run/outpost/internal/deps"
	"outpost.run/outpost/internal/image"
	"outpost.run/outpost/internal/index"
)

// depsOptions says where dependencies come from and where they are kept.
func depsOptions(ctx context.Context, c config.Config, images *image.Store) deps.Options {
	home, _ := os.UserHomeDir() // without one, only settings of the machine count
	return deps.Options{
		Layers: images, Dir: filepath.Join(c.DataDir, "deps"), Host: index.Host{Home: home, Getenv: os.Getenv, Ask: ask(ctx)},
		Indexes: map[index.Manager]string{index.Pip: c.Deps.PipIndex, index.Npm: c.Deps.NpmRegistry, index.Go: c.Deps.GoProxy, index.Cargo: c.Deps.CargoIndex},
	}
}

// ask runs a program of the host for what it prints. An answer holds for a minute: each exec with dependencies asks.
func ask(ctx context.Context) func(...string) string {
	type answer struct {
		text string
		at   time.Time
	}
	var mu sync.Mutex
	said := map[string]answer{}
	return func(words ...string) (text string) {
		mu.Lock()
		defer mu.Unlock()
		if a, ok := said[strings.Join(words, " ")]; ok && time.Since(a.at) < time.Minute {
			return a.text
		}
		defer func() { said[strings.Join(words, " ")] = answer{text, time.Now()} }()
		limited, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		out, err := exec.CommandContext(limited, words[0], words[1:]...).Output()
		if err != nil {
			return ""
		}
		return strings.TrimSpace(string(out))
	}
}
