package node

import (
	"cmp"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"outpost.run/outpost/internal/agent"
	"outpost.run/outpost/internal/compiled"
	"outpost.run/outpost/internal/service"
	"outpost.run/outpost/sandbox"
)

// compilation is an exec's program in the store of compiled ones: it is taken from there, or kept there.
type compilation struct {
	n       *Node
	key     compiled.Key
	program *compiled.Program // nil: it must be compiled
}

// compilation gives nil where a program's compilation may see more than its key tells, and where there is none.
func (n *Node) compilation(b *box, e service.ExecSpec, x needs) *compilation {
	name := languageOf(b, e)
	l := languages[name]
	if n.compiled == nil || e.Code == nil || !l.scratch || !n.clean(b, e) {
		return nil
	}
	if l.runsDeps && len(e.Deps) > 0 && b.spec.Network.Egress != "none" { // they may ask the network
		return nil
	}
	r := program(b, e)
	k := compiled.Key{
		Namespace: b.spec.Namespace, Language: name, Script: l.before[len(l.before)-1], Source: *e.Code, Deps: x.debian,
		User: cmp.Or(e.User, b.spec.Security.User), Dir: r.Dir, Preset: string(b.spec.Security.Preset), Egress: b.spec.Network.Egress, Env: settledEnv(r.Env),
	}
	b.mu.Lock()
	k.Image = b.image.Digest
	layers := b.image.Layers
	b.mu.Unlock()
	if x.layers != nil {
		layers = x.layers
	}
	if k.Image == "" || len(layers) == 0 {
		return nil
	}
	for _, path := range layers { // named by their content
		k.Layers = append(k.Layers, filepath.Base(path))
	}
	if x.set.Layer != "" {
		k.Deps = append(slices.Clone(k.Deps), x.set.Key, filepath.Base(x.set.Layer))
	}
	return &compilation{n: n, key: k, program: n.compiled.Get(k)}
}

// settledEnv is an environment by its names, each once, with the value that counts.
func settledEnv(env [][2]string) (settled [][2]string) {
	last := map[string]string{}
	for _, pair := range env {
		last[pair[0]] = pair[1]
	}
	for _, name := range slices.Sorted(maps.Keys(last)) {
		settled = append(settled, [2]string{name, last[name]})
	}
	return settled
}

// clean says whether what compiles an exec's program is in a machine that nothing of a client's was in: no program, file or
// disk. A health check of the client's own runs in the machine that waits for the next exec.
func (n *Node) clean(b *box, e service.ExecSpec) bool {
	return b.spec.Mode == sandbox.Ephemeral && len(e.Files) == 0 && b.spec.Health.Command == nil && len(n.mounts(b)) == 0
}

// use lets the exec have the program, or keeps what it compiles.
func (c *compilation) use(r *agent.Run, feed *agent.Feed) {
	switch {
	case c == nil:
	case c.program != nil:
		r.Interpreter = append(r.Interpreter[:len(r.Interpreter)-1], runCompiled)
		r.Compiled, feed.Program, feed.ProgramSize = true, c.program.File, c.program.Size
	default:
		r.HandOver, feed.Compiled = true, c.keep
	}
}

// keep keeps the program beside the exec, which has its own and must not fail for it.
func (c *compilation) keep(program *os.File, size int64) {
	here := c.n.compiled.Expect(c.key)
	if here == nil {
		program.Close()
		return
	}
	c.n.ending.Go(func() {
		defer here()
		defer program.Close()
		if err := c.n.compiled.Put(c.key, size, io.NewSectionReader(program, 0, size)); err != nil {
			c.n.log.Warn("a compiled program could not be kept; it will be compiled again", "namespace", c.key.Namespace, "bytes", size, "error", err)
		}
	})
}

func (c *compilation) close() {
	if c != nil && c.program != nil {
		_ = c.program.File.Close()
	}
}
