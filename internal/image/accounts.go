package image

import (
	"fmt"
	"os"
	"slices"
	"strings"
)

// The user as whom programs run unless asked otherwise.
const (
	sandboxUser = "sandbox"
	sandboxID   = 1000
	sandboxHome = "/home/sandbox"
)

// accounts writes passwd, group, shadow and gshadow from base-passwd's masters, with sandbox and apt's own user added.
// Nobody has a password.
func accounts(root *os.Root) error {
	passwd, err := root.ReadFile("usr/share/base-passwd/passwd.master")
	if err != nil {
		return err
	}
	group, err := root.ReadFile("usr/share/base-passwd/group.master")
	if err != nil {
		return err
	}
	users := strings.Split(strings.TrimSpace(string(passwd)), "\n")
	groups := strings.Split(strings.TrimSpace(string(group)), "\n")
	users = append(users, "_apt:*:42:65534::/nonexistent:/usr/sbin/nologin",
		fmt.Sprintf("%s:*:%d:%d:%s:%s:/bin/bash", sandboxUser, sandboxID, sandboxID, sandboxUser, sandboxHome))
	groups = append(groups, fmt.Sprintf("%s:*:%d:", sandboxUser, sandboxID))
	var shadow, gshadow []string
	for i, line := range users {
		f := strings.Split(line, ":")
		f[1] = "x"
		users[i] = strings.Join(f, ":")
		shadow = append(shadow, f[0]+":*:19000:0:99999:7:::")
	}
	for i, line := range groups {
		f := strings.Split(line, ":")
		f[1] = "x"
		groups[i] = strings.Join(f, ":")
		gshadow = append(gshadow, f[0]+":*::")
	}
	if !slices.ContainsFunc(users, func(s string) bool { return strings.HasPrefix(s, "nobody:x:65534:") }) {
		return fmt.Errorf("base-passwd has no nobody with id 65534")
	}
	for _, f := range []struct {
		name  string
		lines []string
		mode  os.FileMode
		gid   int // 42 is shadow's, by base-passwd
	}{
		{"etc/passwd", users, 0o644, 0}, {"etc/group", groups, 0o644, 0},
		{"etc/shadow", shadow, 0o640, 42}, {"etc/gshadow", gshadow, 0o640, 42},
	} {
		if err := writeFile(root, f.name, strings.Join(f.lines, "\n")+"\n", f.mode); err != nil {
			return err
		}
		if err := root.Chown(f.name, 0, f.gid); err != nil {
			return err
		}
	}
	return nil
}
