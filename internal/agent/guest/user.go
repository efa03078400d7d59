package guest

import (
	"bytes"
	"io"
	"strconv"
	"strings"

	"outpost.run/outpost/sandbox"
)

// user is whom a program runs as.
type user struct {
	name     string
	uid, gid int
	groups   []int
	home     string
}

const maxDatabase = 1 << 20 // passwd and group may be a program's work

// lookUser finds a name or uid, with a group after a colon or without, in the root's own passwd and group. A bare uid
// takes the group that passwd gives it, else the same number.
func lookUser(spec string) (user, error) {
	name, group, pair := strings.Cut(spec, ":")
	uid, err := strconv.Atoi(name)
	numeric := err == nil
	u := user{uid: uid, gid: uid, home: "/"}
	found := false
	for _, f := range database("/etc/passwd", 7) {
		id, err1 := strconv.Atoi(f[2])
		gid, err2 := strconv.Atoi(f[3])
		if err1 != nil || err2 != nil || id < 0 || id > 65535 || gid < 0 || gid > 65535 {
			continue
		}
		if f[0] == name && !numeric || numeric && id == uid {
			u, found = user{name: f[0], uid: id, gid: gid, home: f[5]}, true
			break
		}
	}
	if name == "root" && !found { // whatever the image says of users, it has that one
		u, found = user{name: "root", home: "/"}, true
	}
	if !found && !numeric {
		return user{}, refuse(sandbox.UserNotFound, "", "the image has no user %q: name one of its /etc/passwd, or give uid or uid:gid", name)
	}
	if pair {
		if u.gid, err = lookGroup(group); err != nil {
			return user{}, err
		}
	}
	if u.uid < 0 || u.uid > 65535 || u.gid < 0 || u.gid > 65535 {
		return user{}, refuse(sandbox.UserNotFound, "", "user %q: ids go from 0 to 65535", spec)
	}
	if u.name == "" {
		u.name = strconv.Itoa(u.uid)
	}
	if found && !pair {
		for _, f := range database("/etc/group", 4) {
			for _, member := range strings.Split(f[3], ",") {
				if gid, err := strconv.Atoi(f[2]); err == nil && member == u.name && gid >= 0 && gid <= 65535 && len(u.groups) < 64 {
					u.groups = append(u.groups, gid)
				}
			}
		}
	}
	return u, nil
}

// lookGroup finds a group by its name or number.
func lookGroup(group string) (int, error) {
	if gid, err := strconv.Atoi(group); err == nil {
		return gid, nil
	}
	for _, f := range database("/etc/group", 4) {
		if gid, err := strconv.Atoi(f[2]); err == nil && f[0] == group {
			return gid, nil
		}
	}
	return 0, refuse(sandbox.UserNotFound, "", "the image has no group %q: name one of its /etc/group, or give its number", group)
}

// database reads a colon-separated file of the root; lines without the right number of fields are passed over.
func database(path string, fields int) [][]string {
	f, err := openRegular(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxDatabase))
	if err != nil {
		return nil
	}
	var rows [][]string
	for line := range bytes.Lines(b) {
		if row := strings.Split(strings.TrimSpace(string(line)), ":"); len(row) == fields {
			rows = append(rows, row)
		}
	}
	return rows
}
