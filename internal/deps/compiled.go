package deps

import (
	"bytes"
	"context"
	"regexp"
	"strings"

	"outpost.run/outpost/internal/index"
)

var golang, rust recipe

// sumDB is the name of the checksum database that the toolchain asks.
func (w *workshop) sumDB(ctx context.Context, h index.Host) (string, error) {
	var out bytes.Buffer
	_, _, err := w.script(ctx, `go env GOSUMDB`, nil, &out)
	name, _, _ := strings.Cut(strings.TrimSpace(out.String()), "+")
	if err != nil || !sumName.MatchString(name) || name == "off" {
		return "", err
	}
	return name, nil
}

var sumName = regexp.MustCompile(`^[a-z0-9.-]+$`)
