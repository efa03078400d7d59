package compiled

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"hash"
	"io"
)

// Key is all that a compiled program depends on, and its namespace: what is the same under one key is the same program.
type Key struct {
	Namespace string
	Language  string
	Script    string // what compiles it
	Source    string
	Image     string      // the digest: it has the compiler
	Layers    []string    // of the machine, by their digests
	Deps      []string    // sets of dependencies that were shown beside
	User      string      // whose home has the compiler's settings
	Dir       string      // where its file lies: compilers note it
	Preset    string      // what the compiler may do
	Egress    string      // what the machine's files say of the network
	Env       [][2]string // of the compiler: any variable may change what it does
}

// name is the file of a key: 16 digits of the namespace's hash, a dash, 64 of the key's.
func (k Key) name() string {
	h := sha256.New()
	for _, s := range []string{"compiled 1", k.Namespace, k.Language, k.Script, k.Source, k.Image, k.User, k.Dir, k.Preset, k.Egress} {
		put(h, s)
	}
	for _, list := range [][]string{k.Layers, k.Deps} {
		put(h, list...)
	}
	for _, pair := range k.Env {
		put(h, pair[:]...)
	}
	owner := sha256.Sum256([]byte(k.Namespace))
	return hex.EncodeToString(owner[:8]) + "-" + hex.EncodeToString(h.Sum(nil))
}

// put hashes a list so that no other list has the same bytes.
func put(h hash.Hash, list ...string) {
	_ = binary.Write(h, binary.BigEndian, uint64(len(list)))
	for _, s := range list {
		_ = binary.Write(h, binary.BigEndian, uint64(len(s)))
		_, _ = io.WriteString(h, s)
	}
}
