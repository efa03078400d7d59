package container

import (
	"context"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"outpost.run/outpost/internal/disk"
	"outpost.run/outpost/internal/engine"
	"outpost.run/outpost/internal/host"
)

// Probe implements engine.Engine.
func (e *Engine) Probe(ctx context.Context) engine.Capabilities { return Probe(ctx) }

// Probe looks at the host without making anything on it.
func Probe(context.Context) engine.Capabilities {
	c := engine.Capabilities{Engine: "container", Usable: true}
	var uts unix.Utsname
	_ = unix.Uname(&uts)
	c.Kernel = unix.ByteSliceToString(uts.Release[:])
	for _, check := range []func() engine.Check{root, kernelVersion, cgroups(&c), userNamespaces, fileSystem("overlay"), fileSystem("erofs"), fileSystem("ext4"), disks, seccompFilter, cgroupKill, mkfs} {
		x := check()
		c.Checks = append(c.Checks, x)
		c.Usable = c.Usable && (x.OK || !x.Required)
	}
	return c
}

func root() engine.Check {
	return engine.Check{Name: "root", Required: true, OK: os.Geteuid() == 0, Found: fmt.Sprintf("uid %d", os.Geteuid()), Mend: "run outpost serve as root"}
}

func kernelVersion() engine.Check {
	var uts unix.Utsname
	_ = unix.Uname(&uts)
	release := unix.ByteSliceToString(uts.Release[:])
	var major, minor int
	_, _ = fmt.Sscanf(release, "%d.%d", &major, &minor)
	return engine.Check{Name: "kernel", Required: true, OK: major > 6 || major == 6 && minor >= 1, Found: release, Mend: "use Linux 6.1 or newer"}
}

func cgroups(c *engine.Capabilities) func() engine.Check {
	return func() engine.Check {
		x := engine.Check{Name: "control groups", Required: true}
		h, err := host.FindHierarchies()
		if err != nil {
			x.Found, x.Mend = "controllers missing", err.Error()
			return x
		}
		c.Cgroups = h.Kind()
		x.OK, x.Found = true, c.Cgroups
		return x
	}
}

func userNamespaces() engine.Check {
	x := engine.Check{Name: "user namespaces", Required: true, Mend: "sysctl user.max_user_namespaces=100000 (and give a container CAP_SYS_ADMIN)"}
	b, err := os.ReadFile("/proc/sys/user/max_user_namespaces")
	x.Found = "max " + strings.TrimSpace(string(b))
	x.OK = err == nil && strings.TrimSpace(string(b)) != "0"
	return x
}

func fileSystem(name string) func() engine.Check {
	return func() engine.Check {
		x := engine.Check{Name: name, Required: true, Found: "not in /proc/filesystems", Mend: "modprobe " + name}
		b, _ := os.ReadFile("/proc/filesystems")
		for line := range strings.Lines(string(b)) {
			if f := strings.Fields(line); len(f) > 0 && f[len(f)-1] == name {
				x.OK, x.Found = true, "built in or loaded"
			}
		}
		return x
	}
}

func disks() engine.Check {
	x := engine.Check{Name: "loop devices", Required: true, OK: true, Found: "/dev/loop-control"}
	if err := disk.ProbeLoop(); err != nil {
		x.OK, x.Found, x.Mend = false, "none", err.Error()
	}
	return x
}

func mkfs() engine.Check {
	x := engine.Check{Name: "mkfs.ext4", Required: true, Mend: "apt-get install e2fsprogs"}
	path, err := disk.FindMkfs()
	x.OK, x.Found = err == nil, path
	return x
}

func seccompFilter() engine.Check {
	b, err := os.ReadFile("/proc/sys/kernel/seccomp/actions_avail")
	return engine.Check{Name: "seccomp", Required: true, OK: err == nil && strings.Contains(string(b), "errno"), Found: strings.TrimSpace(string(b)), Mend: "use a kernel with CONFIG_SECCOMP_FILTER"}
}

func cgroupKill() engine.Check {
	x := engine.Check{Name: "cgroup.kill", Mend: "mount cgroup2 beside the v1 hierarchies: deadlines then kill in one stroke"}
	h, err := host.FindHierarchies()
	x.OK = err == nil && h.Kind() != "v1"
	x.Found = map[bool]string{true: "there", false: "none; processes are killed one by one"}[x.OK]
	return x
}
