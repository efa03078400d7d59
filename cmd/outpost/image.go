package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"outpost.run/outpost/client"
	"outpost.run/outpost/internal/config"
	"outpost.run/outpost/internal/image"
)

// imagesDir is where a data directory has its image store.
func imagesDir(dataDir string) string { return filepath.Join(dataDir, "images") }

// imageStore opens the store of a data directory; a server may use it at the same time.
type imageStore struct {
	dataDir, config string
	makes           bool // it may be made
}

// open takes the operator's word for which references the host's credentials are; who calls this on the host may read any
// path and ask any registry.
func (s imageStore) open() (*image.Store, error) {
	c, err := config.Load(config.Sources{File: s.config, Env: os.LookupEnv, Flags: func(string) (string, bool) { return "", false }})
	if err != nil {
		return nil, err
	}
	dir := cmp.Or(s.dataDir, c.DataDir, client.DefaultDataDir)
	if _, err := os.Stat(imagesDir(dir)); err != nil && !s.makes {
		return nil, fmt.Errorf("%s has no images: %w; a server elsewhere is not asked, GET …/images of its API tells", dir, err)
	}
	o := imageOptions(c.Images)
	o.LocalRoots, o.PrivateRegistries = []string{"/"}, []string{"*"}
	return image.OpenWith(imagesDir(dir), o)
}

func imageCommand() *cobra.Command {
	var at imageStore
	cmd := group(&cobra.Command{
		Use:   "image",
		Short: "List, make and remove what machines start from",
		Long:  `Works on the image store of a data directory on this host, whether a server runs on it or not.`,
	})
	cmd.PersistentFlags().StringVar(&at.config, "config", "", "the server's configuration file, for images.private")
	cmd.PersistentFlags().StringVar(&at.dataDir, "data-dir", "", "data directory (OUTPOST_DATA_DIR; else "+client.DefaultDataDir+")")
	cmd.AddCommand(imageList(&at), imageRemove(&at), imagePrune(&at),
		imageRefresh(&at, "pull REFERENCE...", "Fetch images from their registries, or take them in from a path", "  outpost image pull library/python:3.13\n  outpost image pull oci-archive:/srv/images/app.tar"),
		imageRefresh(&at, "build REFERENCE...", "Make images from Debian packages", `  outpost image build 'deb:trixie?include=python3'`))
	return cmd
}

// imageRow is an image as programs read it.
type imageRow struct {
	Ref       string    `json:"reference"`
	Digest    string    `json:"digest"`
	SizeBytes int64     `json:"size_bytes"`
	CreatedAt time.Time `json:"created_at"`
	UsedAt    time.Time `json:"used_at"`
	Private   bool      `json:"private"` // pulled with the host's credentials
}

// imageName is an image that a command was done with.
type imageName struct {
	Ref    string `json:"reference"`
	Digest string `json:"digest,omitempty"`
}

// printImages prints a line each, to programs an array.
func printImages(cmd *cobra.Command, all []imageName) error {
	return printAnswer(cmd, all, func(w io.Writer) error {
		for _, i := range all {
			line := i.Ref
			if i.Digest != "" {
				line = i.Digest + "  " + i.Ref
			}
			fmt.Fprintln(w, line)
		}
		return nil
	})
}

func imageList(at *imageStore) *cobra.Command {
	cmd := &cobra.Command{
		Use: "ls", Short: "List the images that are ready", Args: asUsed,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := at.open()
			if err != nil {
				return err
			}
			defer s.Close()
			all, err := s.List()
			if err != nil {
				return err
			}
			rows := []imageRow{}
			for _, i := range all {
				rows = append(rows, imageRow(i))
			}
			return printList(cmd, rows, []string{"REFERENCE", "DIGEST", "SIZE", "MADE", "USED"}, func(r imageRow) []string {
				return []string{r.Ref, fmt.Sprintf("%.19s", r.Digest), megabytes(r.SizeBytes), age(r.CreatedAt), age(r.UsedAt)}
			})
		},
	}
	return cmd
}

func imageRefresh(at *imageStore, use, short, example string) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Example: example, Args: asUsed,
		RunE: func(cmd *cobra.Command, refs []string) error {
			for _, ref := range refs {
				if strings.HasPrefix(use, "build") && !strings.HasPrefix(ref, "deb:") {
					return wrongUsage("%s: images are built of Debian packages alone (deb:SUITE?include=a,b); to fetch one, use outpost image pull", ref)
				}
			}
			at.makes = true
			s, err := at.open()
			if err != nil {
				return err
			}
			defer s.Close()
			how := newProgress(cmd.ErrOrStderr())
			defer how.end()
			done := []imageName{}
			for _, ref := range refs {
				img, err := s.Refresh(cmd.Context(), ref, how.ofImage)
				if err != nil {
					how.end()
					return errors.Join(printImages(cmd, done), err)
				}
				done = append(done, imageName{img.Ref, img.Digest})
			}
			how.end()
			return printImages(cmd, done)
		},
	}
}

func imageRemove(at *imageStore) *cobra.Command {
	return &cobra.Command{
		Use: "rm REFERENCE...", Short: "Remove images, and layers that no other image has", Args: asUsed, ValidArgsFunction: completeImages(at),
		RunE: func(cmd *cobra.Command, refs []string) error {
			s, err := at.open()
			if err != nil {
				return err
			}
			defer s.Close()
			done := []imageName{}
			for _, ref := range refs {
				if _, ok := s.Get(ref); !ok {
					err = fmt.Errorf("there is no image %s: see \"outpost image ls\"", ref)
				} else {
					err = s.Remove(ref)
				}
				if err != nil {
					break
				}
				done = append(done, imageName{Ref: ref})
			}
			return errors.Join(printImages(cmd, done), err)
		},
	}
}

func imagePrune(at *imageStore) *cobra.Command {
	var budgetGB float64
	cmd := &cobra.Command{
		Use: "prune", Short: "Remove the images unused for longest until the store fits a size", Args: asUsed,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !(budgetGB >= 0) || budgetGB > 1<<20 {
				return wrongUsage("--store-gb %v: want a size in GiB, 0 or more", budgetGB)
			}
			s, err := at.open()
			if err != nil {
				return err
			}
			defer s.Close()
			removed, err := s.Prune(int64(budgetGB*(1<<30)), image.Spare{})
			done := []imageName{}
			for _, ref := range removed {
				done = append(done, imageName{Ref: ref})
			}
			return errors.Join(printImages(cmd, done), err)
		},
	}
	cmd.Flags().Float64Var(&budgetGB, "store-gb", 20, "size to fit, in GiB; 0 removes every image")
	return cmd
}

func megabytes(bytes int64) string { return fmt.Sprintf("%.1f MB", float64(bytes)/(1<<20)) }
