// Package disk owns what machines may write to and the host ids they are mapped to.
package disk

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"outpost.run/outpost/sandbox"
)

// Maker makes blank ext4 images: sparse copies of a template for each size, so that one costs 0.1 ms and a few blocks.
type Maker struct {
	dir    string // of the templates
	budget *Budget
	mu     sync.Mutex
	spares spares
}

// NewMaker keeps its templates in dir. budget may be nil: then disks are made as long as the host's has room for a blank
// one.
func NewMaker(dir string, budget *Budget) (*Maker, error) {
	return &Maker{dir: dir, budget: budget}, os.MkdirAll(dir, 0o700)
}

// Watch lets the disks that are made in a folder count in the budget, and removes the spare files that a former daemon left there.
func (m *Maker) Watch(dir string) error {
	m.budget.watch(dir)
	left, err := filepath.Glob(filepath.Join(dir, spareName+"*"))
	if err != nil {
		return err
	}
	for _, path := range left {
		if err := os.Remove(path); err != nil {
			return err
		}
	}
	return nil
}

// Make writes a blank image of sizeMB MiB of room for files; journal is for disks that must survive a crash, and that
// count in full in the budget.
//
// Errors: Capacity where the host's disk has no room, Invalid where it never has, Internal where mkfs.ext4 is missing or
// fails.
func (m *Maker) Make(ctx context.Context, path string, sizeMB int, journal bool) error {
	if err := m.budget.take(path, int64(sizeMB)<<20, journal); err != nil {
		return err
	}
	template, err := m.template(ctx, sizeMB, journal)
	if err != nil {
		return err
	}
	m.spares.take(path)
	if err := copySparse(template, path); err != nil {
		_ = os.Remove(path)
		if full(err) {
			return sandbox.Errorf(sandbox.Capacity, err, "the host's disk is full: try again later")
		}
		return err
	}
	return nil
}

func full(err error) bool {
	return strings.Contains(err.Error(), unix.ENOSPC.Error())
}

// recipe is part of every template's name: raise it when templates come out otherwise.
const recipe = "2"

func (m *Maker) template(ctx context.Context, sizeMB int, journal bool) (string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	kind := "plain"
	if journal {
		kind = "journal"
	}
	path := filepath.Join(m.dir, fmt.Sprintf("%s-%d.%s.img", kind, sizeMB, recipe))
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	draft := path + ".new"
	defer os.Remove(draft)
	want := int64(sizeMB) << 20
	size := want + want/20 + 8<<20
	if journal {
		size += 8 << 20
	}
	for range 4 { // bookkeeping grows with the size; so that disk_mb is what files get, its own size is put on top
		if err := mkfs(ctx, draft, size, journal); err != nil {
			return "", err
		}
		free, err := freeBytes(draft)
		if err != nil {
			return "", err
		}
		if off := want - free; off > -(1<<18) && off <= 0 {
			break
		} else {
			size += off + 64<<10
			size &^= 4095
		}
	}
	if err := PunchZeros(draft); err != nil {
		return "", err
	}
	return path, os.Rename(draft, path)
}

// PunchZeros makes a file no larger on the disk than what it says: it makes holes of what mkfs wrote zeros to (inode tables, 8 MiB of a 512 MiB disk), so that copies skip it; disks are mounted with
// noinit_itable, so that the kernel doesn't write them again.
func PunchZeros(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	const block = 64 << 10
	buf, zero := make([]byte, block), make([]byte, block)
	return eachData(f, func(off, end int64) error {
		for ; off < end; off += block {
			n, err := f.ReadAt(buf[:min(block, end-off)], off)
			if err != nil {
				return err
			}
			if bytes.Equal(buf[:n], zero[:n]) {
				if err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, int64(n)); err != nil {
					return fmt.Errorf("punch a hole (the data directory must be on a file system with sparse files): %w", err)
				}
			}
		}
		return nil
	})
}

// eachData calls f for each part of a file that is no hole.
func eachData(file *os.File, f func(off, end int64) error) error {
	for off := int64(0); ; {
		data, err := unix.Seek(int(file.Fd()), off, unix.SEEK_DATA)
		if err == unix.ENXIO {
			return nil
		}
		if err != nil {
			return err
		}
		if off, err = unix.Seek(int(file.Fd()), data, unix.SEEK_HOLE); err != nil {
			return err
		}
		if err := f(data, off); err != nil {
			return err
		}
	}
}

func mkfs(ctx context.Context, path string, size int64, journal bool) error {
	tool, err := FindMkfs()
	if err != nil {
		return err
	}
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		return err
	}
	features := "^resize_inode,^has_journal,sparse_super2,^metadata_csum,uninit_bg"
	if journal {
		features = "^resize_inode,has_journal"
	}
	args := []string{"-q", "-F", "-b", "4096", "-i", "16384", "-m", "0", "-O", features, "-E", "lazy_itable_init=1,nodiscard"}
	if journal {
		journalMB := 8
		if size < 64<<20 {
			journalMB = 4 // mkfs takes no more than half of the file system
		}
		args = append(args, "-J", fmt.Sprintf("size=%d", journalMB))
	}
	out, err := exec.CommandContext(ctx, tool, append(args, path)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %.500s", tool, err, out)
	}
	return nil
}

// FindMkfs gives the path of mkfs.ext4.
func FindMkfs() (string, error) {
	for _, name := range []string{"mkfs.ext4", "/sbin/mkfs.ext4", "/usr/sbin/mkfs.ext4"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("mkfs.ext4 is missing: install e2fsprogs")
}

// ProbeLoop says what is missing to mount disks, in words that mend it.
func ProbeLoop() error {
	f, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("no loop devices (%v): load the module loop, or give the container /dev/loop-control", err)
	}
	return f.Close()
}

// freeBytes reads how much room files will have from the superblock: what is free, less what ext4 keeps back once it is
// mounted, 2 % and at most 4096 blocks. Source: kernel Documentation/filesystems/ext4/super.rst; ext4_calculate_resv_clusters
// and ext4_set_resv_clusters in fs/ext4/super.c.
func freeBytes(path string) (int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	b := make([]byte, 1024)
	if _, err := f.ReadAt(b, 1024); err != nil {
		return 0, err
	}
	le := binary.LittleEndian
	free := int64(le.Uint32(b[0x0C:])) | int64(le.Uint32(b[0x158:]))<<32
	total := int64(le.Uint32(b[0x04:])) | int64(le.Uint32(b[0x150:]))<<32
	return (free - min(total/50, 4096)) << (10 + le.Uint32(b[0x18:])), nil
}

// copySparse copies what is written of a file, in the kernel where it can.
func copySparse(from, to string) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	st, err := src.Stat()
	if err != nil {
		return err
	}
	dst, err := os.OpenFile(to, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer dst.Close()
	if now, err := dst.Stat(); err != nil || now.Size() > 0 {
		return fmt.Errorf("%s is no new file (%v)", to, err)
	}
	if err := dst.Truncate(st.Size()); err != nil {
		return err
	}
	return eachData(src, func(off, end int64) error {
		if _, err := src.Seek(off, io.SeekStart); err != nil {
			return err
		}
		if _, err := dst.Seek(off, io.SeekStart); err != nil {
			return err
		}
		_, err := io.CopyN(dst, src, end-off)
		return err
	})
}
