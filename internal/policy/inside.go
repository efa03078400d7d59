package policy

import (
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"outpost.run/outpost/sandbox"
)

// CheckFilePath notes what is wrong with the path of a call on files.
func CheckFilePath(name string, faults *sandbox.Faults) {
	checkPath("path", name, faults)
}

// CheckCallback notes what is wrong with the address of a callback, as far as it can be told without asking for its host's. allow are
// blocks that the operator opened.
func CheckCallback(address string, allow []netip.Prefix, faults *sandbox.Faults) {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.Opaque != "" || len(address) > maxPathBytes {
		faults.Add("callback_url", "must be an address as https://host/path")
		return
	}
	if u.User != nil || u.Fragment != "" {
		faults.Add("callback_url", "must have no credentials and no fragment")
		return
	}
	host := u.Hostname()
	a, err := netip.ParseAddr(host)
	switch {
	case err == nil && !CallbackAllowed(a, nil, allow):
		faults.Add("callback_url", "must lead to a public address, or to one of jobs.callback_allow in the operator's configuration")
	case err != nil && (sandbox.CleanHost(host) == "" || strings.EqualFold(strings.TrimSuffix(host, "."), "localhost")) && len(allow) == 0:
		faults.Add("callback_url", "must lead to a public host")
	}
}

// CallbackAllowed says whether a callback may be sent to an address: a public one that is not the host's own, or one that the operator
// opened.
func CallbackAllowed(a netip.Addr, own []net.Addr, allow []netip.Prefix) bool {
	a = a.Unmap()
	if slices.ContainsFunc(allow, func(p netip.Prefix) bool { return p.Contains(a) }) {
		return true
	}
	return sandbox.IsPublic(a) && !sandbox.IsOneOf(a, own)
}

// Signal is the number of a signal by its name. Real-time signals have no names here.
func Signal(name *string, faults *sandbox.Faults) int {
	if name == nil {
		faults.Add("signal", "is required")
		return 0
	}
	n := unix.SignalNum(strings.ToUpper(*name))
	if n == 0 {
		faults.Add("signal", "is no signal: name one as SIGTERM")
	}
	return int(n)
}

// MaxTerminal is how many columns or rows a terminal may have.
const MaxTerminal = 4096

// CheckTerminalSize notes a size that no terminal has.
func CheckTerminalSize(field string, size sandbox.TerminalSize, faults *sandbox.Faults) {
	check := func(name string, n int) {
		if n < 1 || n > MaxTerminal {
			faults.Add(sandbox.Field(field, name), "must be an integer from 1 to %d", MaxTerminal)
		}
	}
	check("cols", size.Cols)
	check("rows", size.Rows)
}
