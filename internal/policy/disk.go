package policy

import (
	"strings"

	"outpost.run/outpost/sandbox"
)

// Disk is a persistent disk as asked for.
type Disk struct {
	SizeGB    int
	MountPath string
}

const defaultMountPath = "/data"

// system are folders of the root over which nothing may be mounted: the machine would not start, or not be the image's.
var system = []string{"/", "/proc", "/sys", "/dev", "/etc", "/usr", "/bin", "/sbin", "/lib", "/lib64", "/tmp", "/run"}

func (p Policy) disk(r sandbox.CreateRequest, faults *sandbox.Faults) *Disk {
	if r.DiskSizeGB == nil {
		if r.DiskMountPath != nil {
			faults.Add("disk_mount_path", "goes with disk_size_gb")
		}
		return nil
	}
	d := &Disk{SizeGB: *r.DiskSizeGB, MountPath: defaultMountPath}
	if d.SizeGB > p.Maximum.DiskSizeGB {
		faults.Add("disk_size_gb", "is over the operator's maximum (%d)", p.Maximum.DiskSizeGB)
	}
	if r.DiskMountPath != nil {
		d.MountPath = checkDir("disk_mount_path", *r.DiskMountPath, faults)
		for _, dir := range system {
			if d.MountPath == dir || dir != "/" && dir != "/tmp" && strings.HasPrefix(d.MountPath, dir+"/") {
				faults.Add("disk_mount_path", "must not be in a folder of the system; choose another, for example /data")
			}
		}
	}
	return d
}
