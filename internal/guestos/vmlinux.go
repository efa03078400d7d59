package guestos

import (
	"bytes"
	"compress/gzip"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/ulikunitz/xz"
)

// vmlinux takes the ELF file out of a kernel image for PCs; an ELF file is one already. Source: the kernel's boot protocol,
// Documentation/arch/x86/boot.rst, protocol 2.08 and later.
func vmlinux(image []byte) ([]byte, error) {
	if bytes.HasPrefix(image, []byte(elf.ELFMAG)) {
		return image, nil
	}
	if len(image) < 0x250 || string(image[0x202:0x206]) != "HdrS" {
		return nil, errors.New("neither an ELF file nor a kernel image for PCs")
	}
	start := (int64(image[0x1f1]) + 1) * 512
	offset, length := int64(binary.LittleEndian.Uint32(image[0x248:])), int64(binary.LittleEndian.Uint32(image[0x24c:]))
	if start+offset+length > int64(len(image)) {
		return nil, errors.New("a kernel image that ends early")
	}
	kernel, err := expand(image[start+offset : start+offset+length])
	if err != nil {
		return nil, fmt.Errorf("the kernel in the image: %w", err)
	}
	if !bytes.HasPrefix(kernel, []byte(elf.ELFMAG)) {
		return nil, errors.New("the kernel in the image is no ELF file")
	}
	return kernel, nil
}

// expandedMost bounds an unpacked kernel.
const expandedMost = 512 << 20

// expand decompresses what kernels are compressed by. Behind it may stand its size, which no format minds.
func expand(b []byte) ([]byte, error) {
	var r io.Reader
	var err error
	switch {
	case bytes.HasPrefix(b, []byte{0x1f, 0x8b}):
		var z *gzip.Reader
		if z, err = gzip.NewReader(bytes.NewReader(b)); err == nil {
			z.Multistream(false)
			r = z
		}
	case bytes.HasPrefix(b, []byte{0xfd, '7', 'z', 'X', 'Z', 0}):
		r, err = xz.ReaderConfig{SingleStream: true}.NewReader(bytes.NewReader(b[:len(b)-4]))
	case bytes.HasPrefix(b, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		r, err = zstd.NewReader(bytes.NewReader(b[:len(b)-4]))
	case bytes.HasPrefix(b, lz4Legacy):
		return expandLZ4(b[len(lz4Legacy):])
	default:
		return nil, fmt.Errorf("compressed in a way that is not known: % x", b[:min(8, len(b))])
	}
	if err != nil {
		return nil, err
	}
	return io.ReadAll(io.LimitReader(r, expandedMost))
}

// The legacy frame of LZ4: blocks, each with its compressed size before it. Source: LZ4 Frame Format Description.
var lz4Legacy = []byte{0x02, 0x21, 0x4c, 0x18}

const lz4Block = 8 << 20

func expandLZ4(b []byte) ([]byte, error) {
	var out []byte
	block := make([]byte, lz4Block)
	for len(b) > 4 {
		size := int(binary.LittleEndian.Uint32(b))
		if size > len(b)-4 {
			break // the size of all, behind the last block
		}
		n, err := lz4.UncompressBlock(b[4:4+size], block)
		if err != nil {
			return nil, err
		}
		if len(out)+n > expandedMost {
			return nil, errors.New("larger than a kernel is")
		}
		out, b = append(out, block[:n]...), b[4+size:]
	}
	return out, nil
}
