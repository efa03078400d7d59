// Package filter writes the seccomp filters of the presets. It is apart from cell, so that the agent, which only installs
// a finished filter, stays small.
package filter

import (
	"encoding/binary"
	"fmt"
	"slices"
	"sync"

	seccomp "github.com/elastic/go-seccomp-bpf"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"outpost.run/outpost/sandbox"
)

// For gives the filter of a preset as struct sock_filter[] in the machine's byte order; each is assembled once.
func For(p sandbox.Preset) ([]byte, error) {
	f, ok := filters[p]
	if !ok {
		return nil, fmt.Errorf("no filter for preset %q", p)
	}
	return f()
}

var filters = map[sandbox.Preset]func() ([]byte, error){
	sandbox.Development: sync.OnceValues(func() ([]byte, error) { return assemble(slices.Concat(base, narrowedAway, wide)) }),
	sandbox.Standard:    sync.OnceValues(func() ([]byte, error) { return assemble(slices.Concat(base, narrowedAway)) }),
	sandbox.Maximum:     sync.OnceValues(func() ([]byte, error) { return assemble(base) }),
}

const (
	enosys     = seccomp.Action(uint32(seccomp.ActionErrno) | uint32(unix.ENOSYS)) // the C library falls back to clone
	namespaces = unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNET
)

// assemble allows the calls named, with the conditions below; all others answer EPERM, and clone3 ENOSYS, since what it
// asks for lies in memory where a filter can't look.
func assemble(names []string) ([]byte, error) {
	when := func(name string, c ...seccomp.Condition) seccomp.NameWithConditions {
		return seccomp.NameWithConditions{Name: name, Conditions: c}
	}
	equal := func(arg uint32, v uint64) seccomp.Condition {
		return seccomp.Condition{Argument: arg, Operation: seccomp.Equal, Value: v}
	}
	policy := seccomp.Policy{
		DefaultAction: seccomp.ActionErrno,
		Syscalls: []seccomp.SyscallGroup{
			{Action: enosys, Names: []string{"clone3"}},
			{Action: seccomp.ActionAllow, Names: names, NamesWithCondtions: []seccomp.NameWithConditions{
				when("clone", seccomp.Condition{Argument: 0, Operation: seccomp.BitsNotSet, Value: namespaces}),
				when("socket", equal(0, unix.AF_UNIX)), when("socket", equal(0, unix.AF_INET)), when("socket", equal(0, unix.AF_INET6)),
				when("socket", equal(0, unix.AF_NETLINK), equal(2, unix.NETLINK_ROUTE)),
				when("socketpair", equal(0, unix.AF_UNIX)),
			}},
		},
	}
	program, err := policy.Assemble()
	if err != nil {
		return nil, err
	}
	raw, err := bpf.Assemble(program)
	if err != nil {
		return nil, err
	}
	b := make([]byte, 0, 8*len(raw))
	for _, i := range raw {
		b = binary.NativeEndian.AppendUint16(b, i.Op)
		b = append(b, i.Jt, i.Jf)
		b = binary.NativeEndian.AppendUint32(b, i.K)
	}
	return b, nil
}
