package e2e_test

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// held is all that the server's installation has on the host, found without the server's own code.
func (s *server) held(t testing.TB) []string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(s.dir, "installation"))
	if err != nil {
		t.Fatal(err)
	}
	mark := "outpost-" + strings.TrimSpace(string(b))
	var all []string
	for _, depth := range []string{"", "*/"} { // v2, or a hierarchy a controller
		for _, engine := range []string{"", "-vm"} {
			groups, _ := filepath.Glob("/sys/fs/cgroup/" + depth + mark + engine + "/[mt]_*") // machines, and guests that become snapshots
			all = append(all, groups...)
		}
	}
	for _, dir := range []string{"run", "disks", "volumes", "gpus", "vms", "vmdisks"} {
		entries, err := os.ReadDir(filepath.Join(s.dir, dir))
		if err != nil && !(strings.HasPrefix(dir, "vm") && os.IsNotExist(err)) { // without microVMs there are none
			t.Fatal(err)
		}
		for _, e := range entries {
			if e.Name() == "spare.img" { // is behind drives that show nothing
				continue
			}
			all = append(all, filepath.Join(s.dir, dir, e.Name()))
		}
	}
	files, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
	for _, f := range files {
		if b, _ := os.ReadFile(f); strings.HasPrefix(string(b), filepath.Join(s.dir, "disks")) {
			all = append(all, f)
		}
	}
	processes, _ := filepath.Glob("/proc/[0-9]*/cgroup")
	for _, f := range processes {
		if b, _ := os.ReadFile(f); livesIn(string(b), "/"+mark+"/") || livesIn(string(b), "/"+mark+"-vm/") {
			all = append(all, filepath.Dir(f))
		}
	}
	return all
}

// groups are the control groups of the server's installation itself.
func (s *server) groups(t testing.TB) (all []string) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(s.dir, "installation"))
	if err != nil {
		t.Fatal(err)
	}
	for _, depth := range []string{"", "*/"} {
		found, _ := filepath.Glob("/sys/fs/cgroup/" + depth + "outpost-" + strings.TrimSpace(string(b)) + "*")
		all = append(all, found...)
	}
	return all
}

// livesIn reads /proc/PID/cgroup: who is in a group that is deleted is dead and waits to be reaped.
func livesIn(groups, path string) bool {
	for line := range strings.Lines(groups) {
		if line = strings.TrimSpace(line); strings.Contains(line, path) && !strings.HasSuffix(line, " (deleted)") {
			return true
		}
	}
	return false
}

// killMachines ends all processes of a server's machines, by their control groups, as the host's end would.
func killMachines(t testing.TB, s *server) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(s.dir, "installation"))
	if err != nil {
		t.Fatal(err)
	}
	mark := "/outpost-" + strings.TrimSpace(string(b)) + "/"
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		found := 0
		files, _ := filepath.Glob("/proc/[0-9]*/cgroup")
		for _, f := range files {
			groups, err := os.ReadFile(f)
			pid, _ := strconv.Atoi(strings.Split(f, "/")[2])
			if err == nil && livesIn(string(groups), mark+"m_") {
				found++
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
		}
		if found == 0 {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%d processes of machines live on", found)
		}
	}
}

func freeBytes(t testing.TB, dir string) int64 {
	t.Helper()
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	return int64(st.Bavail) * st.Bsize
}
