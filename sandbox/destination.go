package sandbox

import (
	"errors"
	"net/netip"
	"strconv"
	"strings"
)

// Destination is one entry of network.allow: a host by name, all hosts below a name, or a block of addresses.
type Destination struct {
	Host   string       // lower case, without a dot at its end; "" for a block
	Below  bool         // *.Host: what lies below that name, at any depth, and not the name itself
	Prefix netip.Prefix // of addresses; invalid for a name
	Port   uint16       // 0 for every port
}

var (
	errDestination = errors.New("must be a host, a *.host, an address or a CIDR, with an optional :port ([…] around IPv6 that has one)")
	errNotPublic   = errors.New("is not public: private and special addresses can't be opened by a request")
	errNotASCII    = errors.New("must be written in its ASCII form, xn--…")
)

// ParseDestination reads one entry of network.allow. The error says what is wrong with it.
func ParseDestination(text string) (Destination, error) {
	var d Destination
	rest, err := d.takePort(text)
	if err != nil {
		return d, err
	}
	if strings.ContainsAny(rest, "/:") || endsInNumber(rest) {
		return d.block(rest)
	}
	if below, is := strings.CutPrefix(rest, "*."); is {
		d.Below, rest = true, below
	}
	if strings.ContainsFunc(rest, func(r rune) bool { return r > 0x7f }) {
		return d, errNotASCII
	}
	if d.Host = CleanHost(rest); d.Host == "" {
		return d, errDestination
	}
	return d, nil
}

// takePort cuts the port off: after the only colon, or after a bracket.
func (d *Destination) takePort(text string) (rest string, err error) {
	host, port := text, ""
	if inner, is := strings.CutPrefix(text, "["); is {
		var after string
		if host, after, is = strings.Cut(inner, "]"); !is || !strings.Contains(host, ":") {
			return "", errDestination
		}
		if after == "" {
			return host, nil
		}
		if port, is = strings.CutPrefix(after, ":"); !is {
			return "", errDestination
		}
	} else if strings.Count(text, ":") == 1 {
		host, port, _ = strings.Cut(text, ":")
	} else {
		return host, nil
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 || port[0] == '0' {
		return "", errors.New("the port must be a number from 1 to 65535")
	}
	d.Port = uint16(n)
	return host, nil
}

func (d Destination) block(text string) (Destination, error) {
	var err error
	if strings.Contains(text, "/") {
		d.Prefix, err = netip.ParsePrefix(text)
	} else {
		var a netip.Addr
		if a, err = netip.ParseAddr(text); err == nil && a.Zone() == "" {
			d.Prefix = netip.PrefixFrom(a, a.BitLen())
		}
	}
	switch {
	case err != nil || !d.Prefix.IsValid():
		return d, errDestination
	case d.Prefix != d.Prefix.Masked():
		return d, errors.New("has bits set after its prefix; write " + d.Prefix.Masked().String())
	case !mayBePublic(d.Prefix):
		return d, errNotPublic
	}
	return d, nil
}

// mayBePublic: a block with public addresses in it. One that also has others opens the public ones alone.
func mayBePublic(p netip.Prefix) bool {
	if p.Addr().Is6() && !p.Overlaps(unicast6) {
		return false
	}
	for _, s := range special {
		if s.Bits() <= p.Bits() && s.Overlaps(p) {
			return false
		}
	}
	return true
}

// CleanHost gives a host's name in lower case without a dot at its end, and "" for what can name none: only letters,
// digits, dashes and underscores count, and an address is no name, in whatever form.
func CleanHost(name string) string {
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	if name == "" || len(name) > 253 || endsInNumber(name) {
		return ""
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return ""
		}
		for _, c := range []byte(label) {
			if !(c == '-' || c == '_' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z') {
				return ""
			}
		}
	}
	return name
}

// endsInNumber: what the URL standard takes for an IPv4 address, odd forms such as 0x7f.1 and 2130706433 included.
// Source: WHATWG URL, "ends in a number checker".
func endsInNumber(name string) bool {
	last := name[strings.LastIndex(strings.TrimSuffix(name, "."), ".")+1:]
	last = strings.ToLower(strings.TrimSuffix(last, "."))
	if last == "" {
		return false
	}
	digits := strings.Trim(last, "0123456789") == ""
	hex, isHex := strings.CutPrefix(last, "0x")
	return digits || isHex && strings.Trim(hex, "0123456789abcdef") == ""
}

// Names says whether a host's name, as CleanHost gives it, and a port belong to the destination.
func (d Destination) Names(host string, port uint16) bool {
	if d.Host == "" || host == "" || d.Port != 0 && d.Port != port {
		return false
	}
	if d.Below {
		return strings.HasSuffix(host, "."+d.Host)
	}
	return host == d.Host
}

// Has says whether an address and a port belong to the destination.
func (d Destination) Has(a netip.AddrPort) bool {
	return d.Prefix.IsValid() && d.Prefix.Contains(a.Addr()) && (d.Port == 0 || d.Port == a.Port())
}
