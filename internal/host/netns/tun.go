package netns

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"outpost.run/outpost/internal/host"
)

// Device is what tun devices are made by.
const Device = "/dev/net/tun"

// Tun is a link that ends in this process: whatever is sent to it is read from a file. It is gone with the file.
type Tun struct {
	Name      string
	MTU       int
	Addresses []netip.Prefix // of the machine
	Gateways  []netip.Addr   // one a family; they are the machine's way to everywhere
}

// ErrNoDevice: this host has no tun devices.
var ErrNoDevice = errors.New("this host has no " + Device)

// busyLimit is how long a tun of a former daemon may take to be gone: its end takes each away, one after the other.
const busyLimit = 20 * time.Second

// OpenTun makes a tun in a network namespace that has none of that name.
func OpenTun(k *host.Kernel, ns *os.File, t Tun) (*os.File, error) {
	if err := k.Enter("make tun"); err != nil {
		return nil, err
	}
	var file *os.File
	err := In(ns, func() (err error) {
		if file, err = t.open(); err != nil {
			return err
		}
		if err := t.furnish(); err != nil {
			file.Close()
			return err
		}
		return nil
	})
	return file, err
}

func (t Tun) open() (*os.File, error) {
	fd, err := unix.Open(Device, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENXIO) {
		return nil, ErrNoDevice
	}
	if err != nil {
		return nil, &host.StepError{Step: "open " + Device, Err: err}
	}
	req, err := unix.NewIfreq(t.Name)
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	req.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_TUN_EXCL)
	for end := time.Now().Add(busyLimit); ; time.Sleep(time.Millisecond) {
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, req)
		if err != unix.EBUSY || time.Now().After(end) {
			break
		}
	}
	if err != nil {
		unix.Close(fd)
		return nil, &host.StepError{Step: "TUNSETIFF", Err: err}
	}
	return os.NewFile(uintptr(fd), Device), nil // after TUNSETIFF: before, the poller would find it broken
}

// furnish gives the link its addresses and lets everything go by it. It runs inside the network namespace.
func (t Tun) furnish() error {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return &host.StepError{Step: "netlink", Err: err}
	}
	defer h.Close()
	link, err := h.LinkByName(t.Name)
	if err != nil {
		return &host.StepError{Step: "find the link", Err: err}
	}
	// No address but those given: no link-local one, no router is asked for.
	if err := os.WriteFile("/proc/sys/net/ipv6/conf/"+t.Name+"/addr_gen_mode", []byte("1"), 0); err != nil && !errors.Is(err, os.ErrNotExist) {
		return &host.StepError{Step: "addr_gen_mode", Err: err}
	}
	if err := h.LinkSetMTU(link, t.MTU); err != nil {
		return &host.StepError{Step: "set the MTU", Err: err}
	}
	if err := h.LinkSetUp(link); err != nil {
		return &host.StepError{Step: "bring the link up", Err: err}
	}
	for _, a := range t.Addresses {
		address := &netlink.Addr{IPNet: &net.IPNet{IP: a.Addr().AsSlice(), Mask: net.CIDRMask(a.Bits(), a.Addr().BitLen())}}
		if a.Addr().Is6() {
			address.Flags = unix.IFA_F_NODAD
		}
		if err := h.AddrAdd(link, address); err != nil {
			return &host.StepError{Step: fmt.Sprintf("add address %s", a), Err: err}
		}
	}
	for _, g := range t.Gateways {
		if err := h.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Gw: g.AsSlice()}); err != nil {
			return &host.StepError{Step: fmt.Sprintf("route by %s", g), Err: err}
		}
	}
	return nil
}

// Leave lets a tun's interface outlive its file, until its network namespace goes.
func Leave(tun *os.File) error {
	raw, err := tun.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	if err := raw.Control(func(fd uintptr) { failed = unix.IoctlSetInt(int(fd), unix.TUNSETPERSIST, 1) }); err != nil {
		return err
	}
	return failed
}

// ProbeTun says whether tun devices can be made here, without making one.
func ProbeTun() error {
	fd, err := unix.Open(Device, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENXIO) {
		return ErrNoDevice
	}
	if err != nil {
		return err
	}
	return unix.Close(fd)
}
