package main

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"outpost.run/outpost/internal/image"
	"outpost.run/outpost/internal/image/imagetest"
)

// layersVariable tells tests in the guest the layers of the image; there they can't make one (package imagetest).
const layersVariable = "OUTPOST_TEST_LAYERS"

// layers gives the files of an image, made on the host where it is missing, and the variable that names them in the
// guest.
func layers(ctx context.Context, ref string, out io.Writer) (files []file, variable string, err error) {
	store, err := image.Open(imagetest.Dir())
	if err != nil {
		return nil, "", err
	}
	defer store.Close()
	phase := ""
	img, err := store.Ensure(ctx, ref, func(p image.Progress) {
		if p.Phase != phase {
			phase = p.Phase
			fmt.Fprintf(out, "kernels: image %s: %s\n", ref, phase)
		}
	})
	if err != nil {
		return nil, "", err
	}
	var paths []string
	for _, l := range img.Layers {
		to := testDir + "/images/" + filepath.Base(l)
		files = append(files, file{l, to})
		paths = append(paths, to)
	}
	return files, layersVariable + "=" + strings.Join(paths, ":"), nil
}
