package image

import (
	"bytes"
	"crypto/md5"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"
)

const dpkgDir = "var/lib/dpkg"

// database is dpkg's record of what is installed, written so that dpkg and apt inside a sandbox go on from it.
type database struct {
	root   *os.Root
	status map[string]string // stanza by name:arch
}

// openDatabase reads the record that root has, none included.
func openDatabase(root *os.Root) (*database, error) {
	db := &database{root: root, status: map[string]string{}}
	for _, d := range []string{"info", "updates", "triggers", "alternatives", "parts"} {
		if err := root.MkdirAll(path.Join(dpkgDir, d), 0o755); err != nil {
			return nil, err
		}
	}
	b, err := root.ReadFile(dpkgDir + "/status")
	if errors.Is(err, os.ErrNotExist) {
		return db, errors.Join(
			writeFile(root, dpkgDir+"/info/format", "1\n", 0o644),
			writeFile(root, dpkgDir+"/available", "", 0o644),
			writeFile(root, dpkgDir+"/diversions", "", 0o644),
			writeFile(root, dpkgDir+"/statoverride", "", 0o644),
			writeFile(root, dpkgDir+"/triggers/File", "", 0o644))
	}
	for stanza := range strings.SplitSeq(string(b), "\n\n") {
		if strings.TrimSpace(stanza) == "" {
			continue
		}
		f := stanzas([]byte(stanza))[0]
		db.status[f["package"]+":"+f["architecture"]] = strings.TrimRight(stanza, "\n")
	}
	return db, err
}

// add records one unpacked package.
func (db *database) add(d *deb, u unpacked) error {
	control := strings.TrimRight(string(d.control["control"]), "\n")
	parsed := stanzas([]byte(control))
	if len(parsed) != 1 || parsed[0]["package"] == "" {
		return errors.New("a package without a control stanza")
	}
	f := parsed[0]
	name := f["package"]
	if f["multi-arch"] == "same" {
		name += ":" + f["architecture"]
	}
	info := path.Join(dpkgDir, "info", name)
	if err := writeFile(db.root, info+".list", strings.Join(u.list, "\n")+"\n", 0o644); err != nil {
		return err
	}
	for file, content := range d.control { // the order is of no account: each is a file of its own
		if file == "control" {
			continue
		}
		mode := os.FileMode(0o644)
		if slices.Contains([]string{"preinst", "postinst", "prerm", "postrm", "config"}, file) {
			mode = 0o755
		}
		if err := writeFile(db.root, info+"."+file, string(content), mode); err != nil {
			return err
		}
	}
	if err := db.triggers(name, d.control["triggers"]); err != nil {
		return err
	}
	first, rest, _ := strings.Cut(control, "\n")
	stanza := first + "\nStatus: install ok installed\n" + rest
	conffiles, err := db.conffiles(d.control["conffiles"])
	if err != nil {
		return err
	}
	db.status[f["package"]+":"+f["architecture"]] = stanza + conffiles
	return nil
}

// conffiles gives the status field that lets dpkg see later whether a configuration file was changed.
func (db *database) conffiles(list []byte) (string, error) {
	var b strings.Builder
	for line := range strings.Lines(string(list)) {
		name := strings.TrimSpace(line)
		if !strings.HasPrefix(name, "/") { // remove-on-upgrade FILE: one that is not there
			continue
		}
		content, err := db.root.ReadFile(name[1:])
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&b, "\n %s %x", name, md5.Sum(content))
	}
	if b.Len() == 0 {
		return "", nil
	}
	return "\nConffiles:" + b.String(), nil
}

// triggers records a package's interests, so that a later installation runs, for one, ldconfig. Source: deb-triggers(5).
func (db *database) triggers(name string, list []byte) error {
	for line := range strings.Lines(string(list)) {
		f := strings.Fields(line)
		if len(f) != 2 || !strings.HasPrefix(f[0], "interest") {
			continue
		}
		who := name
		if strings.HasSuffix(f[0], "noawait") {
			who += "/noawait"
		}
		file, entry := dpkgDir+"/triggers/File", f[1]+" "+who+"\n"
		if !strings.HasPrefix(f[1], "/") {
			file, entry = dpkgDir+"/triggers/"+path.Base(f[1]), who+"\n"
		}
		have, err := db.root.ReadFile(file)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		if bytes.Contains(have, []byte(entry)) {
			continue
		}
		if err := writeFile(db.root, file, string(have)+entry, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// save writes the record.
func (db *database) save() error {
	var b strings.Builder
	for _, name := range sortedKeys(db.status) {
		b.WriteString(db.status[name] + "\n\n")
	}
	return writeFile(db.root, dpkgDir+"/status", b.String(), 0o644)
}
