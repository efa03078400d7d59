package main

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
)

const (
	tokenVariable = "OUTPOST_ADMIN_TOKEN"
	tokenFile     = "admin.token"
	minTokenChars = 32
)

// firstCredential is the operator's token: of the environment, else the one that the first start made and kept.
func firstCredential(dataDir string, log *slog.Logger) (string, error) {
	if token, set := os.LookupEnv(tokenVariable); set {
		if len(token) < minTokenChars || strings.ContainsAny(token, " \t\r\n") {
			return "", fmt.Errorf("%s must have at least %d characters and no blanks", tokenVariable, minTokenChars)
		}
		return token, nil
	}
	path := filepath.Join(dataDir, tokenFile)
	text, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		var b [32]byte
		_, _ = rand.Read(b[:]) // never fails: crypto/rand ends the process instead
		token := hex.EncodeToString(b[:])
		if err := writeWhole(path, []byte(token+"\n"), 0o600); err != nil {
			return "", fmt.Errorf("the first credential can't be kept: %w", err)
		}
		log.Info("made the first credential, of role operator", "file", path)
		return token, nil
	case err != nil:
		return "", fmt.Errorf("the first credential can't be read: %w", err)
	}
	token := strings.TrimSpace(string(text))
	if len(token) < minTokenChars {
		return "", fmt.Errorf("%s holds no token of at least %d characters; remove it, and a new one is made", path, minTokenChars)
	}
	return token, nil
}

// writeWhole writes a file that is there whole or not at all, also after a crash.
func writeWhole(path string, content []byte, mode os.FileMode) error {
	part := path + ".part"
	f, err := os.OpenFile(part, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(part, path)
}
