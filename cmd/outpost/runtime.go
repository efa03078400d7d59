package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"outpost.run/outpost/internal/compiled"
	"outpost.run/outpost/internal/config"
	"outpost.run/outpost/internal/disk"
	"outpost.run/outpost/internal/engine/container"
	"outpost.run/outpost/internal/gpu"
	"outpost.run/outpost/internal/host"
	"outpost.run/outpost/internal/image"
	"outpost.run/outpost/internal/metrics"
	"outpost.run/outpost/internal/node"
	"outpost.run/outpost/internal/service"
)

// newRuntime makes the runtime of this host. What the host lacks is said here, at start, not at the first request; without microVMs it
// says why.
func newRuntime(ctx context.Context, c config.Config, m *metrics.Metrics, how *progress, log *slog.Logger) (_ service.Runtime, noMicroVM string, err error) {
	if lacks := missing(ctx); lacks != "" {
		return nil, "", errors.New("this host can't run sandboxes:\n" + lacks + "outpost doctor says more")
	}
	id, err := installation(c.DataDir)
	if err != nil {
		return nil, "", err
	}
	budget := &disk.Budget{Reserve: int64(c.Disk.ReserveMB) << 20, Overcommit: int64(c.Disk.Overcommit)}
	maker, err := disk.NewMaker(filepath.Join(c.DataDir, "templates"), budget)
	if err != nil {
		return nil, "", err
	}
	volumes, err := disk.NewVolumes(filepath.Join(c.DataDir, "volumes"), maker)
	if err != nil {
		return nil, "", err
	}
	ranges, err := disk.NewRanges(disk.Registry, id, c.DataDir)
	if err != nil {
		return nil, "", err
	}
	engine, err := container.Open(container.Options{Kernel: host.New(), DataDir: c.DataDir, Installation: id, Disks: maker, Ranges: ranges, Observe: m.Phases("container")})
	if err != nil {
		return nil, "", err
	}
	micro, lacks, err := openMicroVM(ctx, c, id, maker, ranges, m.Phases("microvm"), log)
	if err != nil {
		return nil, "", err
	}
	words := imageOptions(c.Images)
	words.Log = log
	images, err := image.OpenWith(filepath.Join(c.DataDir, "images"), words)
	if err != nil {
		return nil, "", err
	}
	gpus, err := gpu.NewPool(c.GPUs, gpu.NewCatalog(c.CDIDirs...), filepath.Join(c.DataDir, "gpus"))
	if err != nil {
		return nil, "", err
	}
	net, err := openNetwork(c.Ports, log)
	if err != nil {
		return nil, "", err
	}
	programs, err := openCompiled(c)
	if err != nil {
		return nil, "", err
	}
	defaults := []string{c.Images.Python, c.Images.Bash, c.Images.Node, c.Images.Go, c.Images.Rust}
	go prepareImages(ctx, images, defaults, how, log)
	parts := node.Config{Engine: engine, Images: images, Default: defaults, Budget: int64(c.Images.StoreGB) << 30, Volumes: volumes, GPUs: gpus, Network: net,
		Pool: node.PoolBounds{MaxIdle: c.Pool.MaxIdle, MaxBytes: int64(c.Pool.MaxMemoryMB) << 20}, Compiled: programs, Log: log, Watcher: m}
	if micro != nil {
		parts.MicroVM = micro
	}
	n := node.New(parts)
	m.WatchMachines(n.Machines)
	if c.Pool.MaxIdle > 0 {
		m.WatchPool(n.Pool)
	}
	return n, lacks, n.ServeDeps(depsOptions(ctx, c, images))
}

// imageOptions is what the configuration says on images; one alone is never larger than the store may be.
func imageOptions(c config.Images) image.Options {
	o := image.Options{LocalRoots: c.LocalRoots, Private: c.Private, PrivateRegistries: c.AllowPrivateRegistries, Bounds: image.Usual}
	o.Bounds.Bytes = min(o.Bounds.Bytes, int64(c.StoreGB)<<30)
	return o
}

// openCompiled finds the compiled programs that are kept; nil for none.
func openCompiled(c config.Config) (*compiled.Store, error) {
	dir := filepath.Join(c.DataDir, "compiled")
	if c.Compiled.KeepMB == 0 {
		return nil, os.RemoveAll(dir)
	}
	return compiled.Open(dir, int64(c.Compiled.KeepMB)<<20)
}

// missing lists what is required and not there, a line each.
func missing(ctx context.Context) string {
	var b strings.Builder
	for _, x := range container.Probe(ctx).Checks {
		if x.Required && !x.OK {
			fmt.Fprintf(&b, "  %s: %s; %s\n", x.Name, x.Found, x.Mend)
		}
	}
	return b.String()
}

// installation is the mark of everything that the servers of one data directory make on the host.
func installation(dataDir string) (string, error) {
	path := filepath.Join(dataDir, "installation")
	b, err := os.ReadFile(path)
	if err == nil {
		return strings.TrimSpace(string(b)), nil
	}
	if !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	raw := make([]byte, 6)
	_, _ = rand.Read(raw)
	id := hex.EncodeToString(raw)
	return id, writeWhole(path, []byte(id+"\n"), 0o600)
}

// prepareImages makes missing default images in the background; the first that needs one waits for the same build.
func prepareImages(ctx context.Context, images *image.Store, refs []string, how *progress, log *slog.Logger) {
	for _, ref := range refs {
		if ref == "" { // the language is not served
			continue
		}
		phase := ""
		_, err := images.Ensure(ctx, ref, func(p image.Progress) {
			if p.Phase != phase {
				phase = p.Phase
				log.Info("preparing an image", "image", p.Ref, "phase", p.Phase)
			}
			how.ofImage(p)
		})
		how.end()
		if err != nil && ctx.Err() == nil {
			log.Error("a default image could not be prepared; the first request that needs it tries again", "image", ref, "error", err)
		}
	}
}
