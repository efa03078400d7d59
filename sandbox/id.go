package sandbox

import (
	"crypto/rand"
	"encoding/hex"
)

// The prefixes of ids.
const (
	SandboxPrefix = "sb_"
	ExecPrefix    = "exec_"
	KeyPrefix     = "key_"
	TokenPrefix   = "pat_"
	RequestPrefix = "req_"
)

// NewID makes an id: the prefix and 12 hex digits that nobody can guess.
func NewID(prefix string) string {
	var b [6]byte
	_, _ = rand.Read(b[:]) // never fails: crypto/rand ends the process instead
	return prefix + hex.EncodeToString(b[:])
}
