package image

import (
	"bufio"
	"bytes"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// decompressed gives a layer's tar, whatever of the three forms that layers have it is in.
func decompressed(r io.Reader) (io.ReadCloser, error) {
	b := bufio.NewReaderSize(r, 1<<16)
	head, err := b.Peek(4)
	if err != nil && err != io.EOF {
		return nil, err
	}
	switch {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		z, err := gzip.NewReader(b)
		if err != nil {
			return nil, brokenf("a layer is no gzip: %v", err)
		}
		return decoded{z}, nil
	case bytes.Equal(head, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		z, err := zstd.NewReader(b, zstd.WithDecoderMaxMemory(256<<20), zstd.WithDecoderConcurrency(1))
		if err != nil {
			return nil, brokenf("a layer is no zstd: %v", err)
		}
		return decoded{z.IOReadCloser()}, nil
	}
	return io.NopCloser(b), nil
}

// decoded tells a bad stream from one that broke off.
type decoded struct{ io.ReadCloser }

func (d decoded) Read(b []byte) (int, error) {
	n, err := d.ReadCloser.Read(b)
	switch err {
	case gzip.ErrHeader, gzip.ErrChecksum, zstd.ErrMagicMismatch, zstd.ErrCRCMismatch, zstd.ErrWindowSizeExceeded, zstd.ErrDecoderSizeExceeded, io.ErrUnexpectedEOF:
		return n, brokenf("a layer can't be decompressed: %v", err)
	}
	return n, err
}
