package guest

import (
	"errors"
	"io/fs"
	"path"

	"golang.org/x/sys/unix"

	"outpost.run/outpost/sandbox"
)

const (
	resolvConf = "/etc/resolv.conf"
	hosts      = "/etc/hosts"
	localNames = "127.0.0.1\tlocalhost sandbox\n::1\tlocalhost ip6-localhost ip6-loopback\n"
)

// nameServer lets programs ask for names at an address, "" for none, and gives the root the names of its own loopback
// where the image says nothing.
func nameServer(address string) error {
	return as(user{}, func() error {
		if f, err := openRegular(hosts); err == nil {
			st, err := f.Stat()
			f.Close()
			if err == nil && st.Size() > 0 {
				return writeNames(resolvConf, address)
			}
		}
		if err := replace(hosts, localNames); err != nil {
			return err
		}
		return writeNames(resolvConf, address)
	})
}

func writeNames(path, address string) error {
	if address == "" {
		return nil
	}
	return replace(path, "nameserver "+address+"\n")
}

// replace puts a file of root's in the place of whatever is there: a link is not followed. What is in the way there is the
// image's, or of programs that ran before a stop.
func replace(file, text string) error {
	err := put(file, text)
	switch {
	case err == nil:
		return nil
	case full(err):
		return refuse(sandbox.DiskFull, "resource_limits.disk_mb", "%s does not fit on the sandbox's disk: raise resource_limits.disk_mb", file)
	}
	return refuse(sandbox.Invalid, "image", "%s can't be written: %s. The sandbox's root must have a directory at %s, or nothing, and no directory at %s", file, reason(err), path.Dir(file), file)
}

func put(file, text string) error {
	if err := remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := create(file, unix.O_EXCL)
	if err != nil {
		return err
	}
	if _, err := f.WriteString(text); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}
