package main

import (
	"cmp"
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
type imageStore struct{ dataDir, config string }

// open takes the operator's word for which references the host's credentials are; who calls this on the host may read any
// path and ask any registry.
func (s imageStore) open() (*image.Store, error) {
	c, err := config.Load(config.Sources{File: s.config, Env: os.LookupEnv, Flags: func(string) (string, bool) { return "", false }})
	if err != nil {
		return nil, err
	}
	o := imageOptions(c.Images)
	o.LocalRoots, o.PrivateRegistries = []string{"/"}, []string{"*"}
	return image.OpenWith(imagesDir(cmp.Or(s.dataDir, c.DataDir, client.DefaultDataDir)), o)
}

func imageCommand() *cobra.Command {
	var at imageStore
	cmd := &cobra.Command{
		Use:   "image",
		Short: "List, make and remove what machines start from",
		Long:  `Works on the image store of a data directory on this host, whether a server runs on it or not.`,
	}
	cmd.PersistentFlags().StringVar(&at.config, "config", "", "the server's configuration file, for images.private")
	cmd.PersistentFlags().StringVar(&at.dataDir, "data-dir", "", "data directory (OUTPOST_DATA_DIR; else "+client.DefaultDataDir+")")
	cmd.AddCommand(imageList(&at), imageRemove(&at), imagePrune(&at),
		imageRefresh(&at, "pull REFERENCE...", "Fetch images from their registries, or take them in from a path", "  outpost image pull library/python:3.13\n  outpost image pull oci-archive:/srv/images/app.tar"),
		imageRefresh(&at, "build REFERENCE...", "Make images from Debian packages", `  outpost image build 'deb:trixie?include=python3'`))
	return cmd
}

func imageList(at *imageStore) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "ls", Short: "List the images that are ready", Args: cobra.NoArgs,
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
			type row struct {
				Ref       string    `json:"reference"`
				Digest    string    `json:"digest"`
				SizeBytes int64     `json:"size_bytes"`
				CreatedAt time.Time `json:"created_at"`
				UsedAt    time.Time `json:"used_at"`
				Private   bool      `json:"private"` // pulled with the host's credentials
			}
			rows, cells := []row{}, [][]string{}
			for _, i := range all {
				rows = append(rows, row(i))
				cells = append(cells, []string{i.Ref, fmt.Sprintf("%.19s", i.Digest), megabytes(i.SizeBytes), age(i.CreatedAt), age(i.UsedAt)})
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), rows)
			}
			return table(cmd.OutOrStdout(), []string{"REFERENCE", "DIGEST", "SIZE", "MADE", "USED"}, cells)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the whole rows")
	return cmd
}

func imageRefresh(at *imageStore, use, short, example string) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Example: example, Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, refs []string) error {
			s, err := at.open()
			if err != nil {
				return err
			}
			defer s.Close()
			for _, ref := range refs {
				if strings.HasPrefix(use, "build") && !strings.HasPrefix(ref, "deb:") {
					return fmt.Errorf("%s: images are built of Debian packages alone (deb:SUITE?include=a,b); to fetch one, use outpost image pull", ref)
				}
				img, err := s.Refresh(cmd.Context(), ref, progressLines(cmd.ErrOrStderr()))
				if err != nil {
					return err
				}
				fmt.Fprintf(cmd.OutOrStdout(), "%s  %s\n", img.Digest, img.Ref)
			}
			return nil
		},
	}
}

// progressLines writes a line for each phase, and within one at most one a second.
func progressLines(w io.Writer) func(image.Progress) {
	var last image.Progress
	var said time.Time
	return func(p image.Progress) {
		if p.Phase == last.Phase && p.Ref == last.Ref && (p.Done != p.Total || p == last) && time.Since(said) < time.Second {
			return
		}
		last, said = p, time.Now()
		if p.Total > 0 {
			fmt.Fprintf(w, "%s: %s %d of %d\n", p.Ref, p.Phase, p.Done, p.Total)
		} else {
			fmt.Fprintf(w, "%s: %s\n", p.Ref, p.Phase)
		}
	}
}

func imageRemove(at *imageStore) *cobra.Command {
	return &cobra.Command{
		Use: "rm REFERENCE...", Short: "Remove images, and layers that no other image has", Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, refs []string) error {
			s, err := at.open()
			if err != nil {
				return err
			}
			defer s.Close()
			for _, ref := range refs {
				if _, ok := s.Get(ref); !ok {
					return fmt.Errorf("there is no image %s: see \"outpost image ls\"", ref)
				}
				if err := s.Remove(ref); err != nil {
					return err
				}
				fmt.Fprintln(cmd.OutOrStdout(), ref)
			}
			return nil
		},
	}
}

func imagePrune(at *imageStore) *cobra.Command {
	var budgetGB float64
	cmd := &cobra.Command{
		Use: "prune", Short: "Remove the images unused for longest until the store fits a size", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !(budgetGB >= 0) || budgetGB > 1<<20 {
				return fmt.Errorf("--store-gb %v: want a size in GiB, 0 or more", budgetGB)
			}
			s, err := at.open()
			if err != nil {
				return err
			}
			defer s.Close()
			removed, err := s.Prune(int64(budgetGB*(1<<30)), image.Spare{})
			for _, ref := range removed {
				fmt.Fprintln(cmd.OutOrStdout(), ref)
			}
			return err
		},
	}
	cmd.Flags().Float64Var(&budgetGB, "store-gb", 20, "size to fit, in GiB; 0 removes every image")
	return cmd
}

func megabytes(bytes int64) string { return fmt.Sprintf("%.1f MB", float64(bytes)/(1<<20)) }
