package main

import (
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"outpost.run/outpost/sandbox"
)

// machineFlags are what `create` and `run` say of the machine, beside the limits.
type machineFlags struct {
	image, preset, egress, gpu, diskPath string
	allow                                []string
	diskSizeGB                           int
	noSeccomp, jailer                    bool
}

func (m *machineFlags) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&m.image, "image", "", "image instead of the language's own, for example repo/name:tag")
	f.StringVar(&m.preset, "preset", "", "development, standard or maximum security")
	f.StringVar(&m.egress, "egress", "", "what it reaches: none, public or allow (by the preset unless given)")
	f.StringArrayVar(&m.allow, "allow", nil, "HOST, *.HOST or CIDR, each with an optional :PORT; may be repeated, implies --egress allow")
	f.StringVar(&m.gpu, "gpu", "", "GPUs, TYPE:COUNT")
	f.IntVar(&m.diskSizeGB, "disk-size-gb", 0, "a persistent disk of so many GiB")
	f.StringVar(&m.diskPath, "disk-mount-path", "", "where the persistent disk is (/data)")
	f.BoolVar(&m.noSeccomp, "no-seccomp", false, "without the system call filter, where the operator allows it")
	f.BoolVar(&m.jailer, "microvm", false, "in a Firecracker microVM, or not at all")
}

// fill puts what was said into a create request; its limits may be there.
func (m *machineFlags) fill(cmd *cobra.Command, r *sandbox.CreateRequest) {
	r.Image, r.DiskSizeGB, r.DiskMountPath = given(cmd, "image", m.image), given(cmd, "disk-size-gb", m.diskSizeGB), given(cmd, "disk-mount-path", m.diskPath)
	egress := given(cmd, "egress", m.egress)
	if egress == nil && len(m.allow) > 0 {
		egress = new("allow")
	}
	if egress != nil {
		r.Network = &sandbox.NetworkRequest{Egress: egress, Allow: m.allow}
	}
	if preset := given(cmd, "preset", m.preset); preset != nil || m.noSeccomp || m.jailer {
		r.Security = &sandbox.SecurityRequest{Preset: preset, JailerEnabled: pointer(m.jailer)}
		if m.noSeccomp {
			r.Security.SeccompEnabled = new(false)
		}
	}
	if gpu := given(cmd, "gpu", m.gpu); gpu != nil {
		if r.ResourceLimits == nil {
			r.ResourceLimits = &sandbox.LimitsRequest{}
		}
		r.ResourceLimits.GPU = gpu
	}
}

// portOf reads GUEST[:HOST][/PROTOCOL].
func portOf(text string) (p sandbox.PortRequest, err error) {
	ports, protocol, named := strings.Cut(text, "/")
	if named {
		p.Protocol = &protocol
	}
	guest, host, fixed := strings.Cut(ports, ":")
	number := func(s string) *int {
		n, bad := strconv.Atoi(s)
		if bad != nil {
			err = wrongUsage("%q is no port: want GUEST[:HOST][/udp], for example 8000 or 53:31053/udp", text)
		}
		return &n
	}
	p.GuestPort = number(guest)
	if fixed {
		p.HostPort = number(host)
	}
	return p, err
}
