package image

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"path"
	"strconv"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// A deb is one Debian package, decompressed. Source: deb(5).
type deb struct {
	control map[string][]byte // the files of its control archive: control, md5sums, postinst, …
	data    []byte            // its data archive, a plain tar
}

const maxDebBytes = 4 << 30 // of one decompressed archive; the largest of Debian are below 2 GiB

// readDeb reads and decompresses a package file.
func readDeb(r io.Reader) (*deb, error) {
	br := bufio.NewReaderSize(r, 1<<16)
	magic := make([]byte, 8)
	if _, err := io.ReadFull(br, magic); err != nil || string(magic) != "!<arch>\n" {
		return nil, errors.New("not an ar archive")
	}
	d := &deb{}
	for {
		header := make([]byte, 60)
		if _, err := io.ReadFull(br, header); err == io.EOF {
			break
		} else if err != nil {
			return nil, fmt.Errorf("ar header: %w", err)
		}
		name := strings.TrimRight(strings.TrimSpace(string(header[:16])), "/")
		size, err := strconv.ParseInt(strings.TrimSpace(string(header[48:58])), 10, 64)
		if err != nil || size < 0 {
			return nil, fmt.Errorf("ar member %q: bad size", name)
		}
		member := io.LimitReader(br, size)
		switch {
		case strings.HasPrefix(name, "control.tar"):
			plain, err := decompress(name, member)
			if err != nil {
				return nil, err
			}
			if d.control, err = tarFiles(plain); err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
		case strings.HasPrefix(name, "data.tar"):
			if d.data, err = decompress(name, member); err != nil {
				return nil, err
			}
		}
		if _, err := io.Copy(io.Discard, member); err != nil {
			return nil, err
		}
		if size%2 == 1 {
			if _, err := br.Discard(1); err != nil && err != io.EOF {
				return nil, err
			}
		}
	}
	if d.control == nil || d.data == nil {
		return nil, errors.New("no control or no data archive")
	}
	return d, nil
}

func decompress(name string, r io.Reader) ([]byte, error) {
	var plain io.Reader
	var err error
	switch path.Ext(name) {
	case ".xz":
		plain, err = xz.NewReader(bufio.NewReaderSize(r, 1<<16))
	case ".gz":
		plain, err = gzip.NewReader(r)
	case ".zst":
		var z *zstd.Decoder
		if z, err = zstd.NewReader(r); err == nil {
			defer z.Close()
			plain = z
		}
	case ".tar":
		plain = r
	default:
		err = errors.New("unknown compression")
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	var b bytes.Buffer
	if n, err := io.Copy(&b, io.LimitReader(plain, maxDebBytes)); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	} else if n == maxDebBytes {
		return nil, fmt.Errorf("%s: larger than %d bytes", name, int64(maxDebBytes))
	}
	return b.Bytes(), nil
}

func tarFiles(b []byte) (map[string][]byte, error) {
	files := map[string][]byte{}
	tr := tar.NewReader(bytes.NewReader(b))
	for {
		h, err := tr.Next()
		if err == io.EOF {
			return files, nil
		} else if err != nil {
			return nil, err
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		if files[path.Base(h.Name)], err = io.ReadAll(tr); err != nil {
			return nil, err
		}
	}
}
