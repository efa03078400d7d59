package client

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// DefaultDataDir is where a server keeps its state unless told otherwise.
const DefaultDataDir = "/var/lib/outpost"

// The files of a data directory by which a client beside the server finds it.
const (
	localFile = "server.json"
	tokenFile = "admin.token"
)

// Local is what a running server leaves in its data directory for clients beside it.
type Local struct {
	URL string `json:"url"`
	PID int    `json:"pid"`
}

// ErrNoLocal says that no server has left its address in a data directory.
var ErrNoLocal = errors.New("no server runs on this data directory")

// FindLocal gives the address of the server that runs on dir. ErrNoLocal where none does.
func FindLocal(dir string) (Local, error) {
	var l Local
	text, err := os.ReadFile(filepath.Join(dir, localFile))
	if errors.Is(err, fs.ErrNotExist) {
		return l, ErrNoLocal
	}
	if err != nil {
		return l, err
	}
	if err := json.Unmarshal(text, &l); err != nil || l.URL == "" {
		return l, fmt.Errorf("%s is damaged: remove it, and start the server again", filepath.Join(dir, localFile))
	}
	return l, nil
}

// LocalToken reads the first credential that a server keeps in its data directory; only its owner may read it.
func LocalToken(dir string) (string, error) {
	text, err := os.ReadFile(filepath.Join(dir, tokenFile))
	return strings.TrimSpace(string(text)), err
}
