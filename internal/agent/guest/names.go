package guest

import (
	"errors"
	"io/fs"

	"golang.org/x/sys/unix"
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

// replace puts a file of root's in the place of whatever is there: a link is not followed.
func replace(path, text string) error {
	if err := remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := create(path, unix.O_EXCL)
	if err != nil {
		return err
	}
	if _, err := f.WriteString(text); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}
