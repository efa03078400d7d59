package network

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net/netip"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
	"golang.org/x/time/rate"
	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"

	"outpost.run/outpost/internal/engine"
)

// What a machine sees of its link, the same in each: nobody else ever sees these addresses.
var (
	machine4 = netip.MustParseAddr("10.0.0.2")
	gateway4 = netip.MustParseAddr("10.0.0.1") // answers DNS
	machine6 = netip.MustParseAddr("fd00::2")
	gateway6 = netip.MustParseAddr("fd00::1")
)

// Resolver is the address at which a machine with egress finds its DNS.
func Resolver() netip.Addr { return gateway4 }

// mtu: a packet costs much the same whatever its size, but small buffers must hold a few.
const mtu = 9000

const nicID = 1

func device(name string, v6 bool) engine.LinkSpec {
	t := engine.LinkSpec{Name: name, MTU: mtu, Addresses: []netip.Prefix{netip.PrefixFrom(machine4, 24)}, Gateways: []netip.Addr{gateway4}}
	if v6 {
		t.Addresses = append(t.Addresses, netip.PrefixFrom(machine6, 64))
		t.Gateways = append(t.Gateways, gateway6)
	}
	return t
}

// inner is the network stack at the machine's other end. It takes every address for its own, so that whatever the
// machine connects to comes out as a request for a connection.
type inner struct {
	*stack.Stack
	end *tunEnd
}

func newInner(l *Link, v6 bool) (*inner, error) {
	s := stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol, ipv6.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocolCUBIC, udp.NewProtocol},
		RandSource:         randomness{},
	})
	in := &inner{s, &tunEnd{link: l.link, v6: v6, ctx: l.ctx, pace: l.pace}}
	noAutoTuning := tcpip.TCPModerateReceiveBufferOption(false) // what a connection may hold is bounded by us
	sack := tcpip.TCPSACKEnabled(true)
	errs := []tcpip.Error{
		s.SetTransportProtocolOption(tcp.ProtocolNumber, &noAutoTuning),
		s.SetTransportProtocolOption(tcp.ProtocolNumber, &sack),
		s.SetTransportProtocolOption(tcp.ProtocolNumber, &tcpip.TCPReceiveBufferSizeRangeOption{Min: leastBuffer, Default: mostBuffer, Max: mostBuffer}),
		s.SetTransportProtocolOption(tcp.ProtocolNumber, &tcpip.TCPSendBufferSizeRangeOption{Min: leastBuffer, Default: mostBuffer, Max: mostBuffer}),
		s.CreateNIC(nicID, in.end),
		s.SetPromiscuousMode(nicID, true),
		s.SetSpoofing(nicID, true),
	}
	own := []netip.Addr{gateway4}
	s.AddRoute(tcpip.Route{Destination: header.IPv4EmptySubnet, NIC: nicID})
	if v6 {
		own = append(own, gateway6)
		s.AddRoute(tcpip.Route{Destination: header.IPv6EmptySubnet, NIC: nicID})
	}
	for _, a := range own {
		errs = append(errs, s.AddProtocolAddress(nicID, tcpip.ProtocolAddress{
			Protocol: protocolOf(a), AddressWithPrefix: tcpip.AddrFromSlice(a.AsSlice()).WithPrefix(),
		}, stack.AddressProperties{}))
	}
	for _, err := range errs {
		if err != nil {
			in.close()
			return nil, errors.New(err.String())
		}
	}
	s.SetTransportProtocolHandler(tcp.ProtocolNumber, tcp.NewForwarder(s, mostBuffer, pending, l.acceptTCP).HandlePacket)
	s.SetTransportProtocolHandler(udp.ProtocolNumber, udp.NewForwarder(s, l.acceptUDP).HandlePacket)
	dns, err := l.listenDNS(in)
	if err != nil {
		in.close()
		return nil, err
	}
	in.end.reading.Go(in.end.read)
	l.work.Go(func() { l.serveDatagrams(dns) })
	context.AfterFunc(l.ctx, func() { dns.Close() })
	return in, nil
}

// close ends the stack and all connections in it; its file must be closed before.
func (in *inner) close() {
	in.Stack.Close()
	in.RemoveNIC(nicID)
	in.end.reading.Wait()
	in.Wait()
}

func protocolOf(a netip.Addr) tcpip.NetworkProtocolNumber {
	if a.Is4() {
		return ipv4.ProtocolNumber
	}
	return ipv6.ProtocolNumber
}

// randomness is safe for concurrent use, and costs no memory a stack.
type randomness struct{}

func (randomness) Int63() int64   { return int64(rand.Uint64() >> 1) }
func (randomness) Uint64() uint64 { return rand.Uint64() }
func (randomness) Seed(int64)     {}

// tunEnd is the stack's link: it reads packets from the machine's and writes them there.
type tunEnd struct {
	link    engine.Link
	v6      bool
	ctx     context.Context
	pace    *rate.Limiter // of packets, see packetRate
	reading sync.WaitGroup

	mu         sync.RWMutex
	dispatcher stack.NetworkDispatcher
}

// A packet costs this process some 2 µs, and one that asks for a connection 25 µs, which no limit of the machine's bounds.
// So much is read of a link each second; more waits in the device's queue, and is lost when that is full.
const (
	packetRate  = 50_000
	packetBurst = 10_000
	packetBatch = 64 // are waited for together
	askingCosts = 16 // packets
)

var packets = sync.Pool{New: func() any { return new([mtu]byte) }}

// read hands on what the machine sends.
func (e *tunEnd) read() {
	if file, is := e.link.(syscall.Conn); is {
		if raw, err := file.SyscallConn(); err == nil {
			e.readFile(raw)
		}
		return
	}
	packet := make([]byte, mtu)
	for left := 0; ; left-- {
		if left == 0 {
			if left = packetBatch; e.pace.WaitN(e.ctx, packetBatch) != nil {
				return
			}
		}
		n, err := e.link.Read(packet)
		if err != nil { // closed
			return
		}
		e.deliver(packet[:n])
	}
}

// readFile takes a buffer only when there is a packet, so that an idle link holds none.
func (e *tunEnd) readFile(raw syscall.RawConn) {
	for left := 0; ; left-- {
		if left == 0 {
			if left = packetBatch; e.pace.WaitN(e.ctx, packetBatch) != nil {
				return
			}
		}
		packet, n := (*[mtu]byte)(nil), 0
		var failed error
		err := raw.Read(func(fd uintptr) bool {
			packet = packets.Get().(*[mtu]byte)
			if n, failed = unix.Read(int(fd), packet[:]); failed == unix.EAGAIN {
				packets.Put(packet)
				return false
			}
			return true
		})
		if err != nil { // closed
			return
		}
		if failed == nil && n > 0 {
			e.deliver(packet[:n])
		}
		packets.Put(packet)
		if failed != nil && failed != unix.EINTR {
			return // the device is gone with its namespace
		}
	}
}

// deliver hands a packet of the machine to the stack, if it is one that the stack should see: a whole or partial TCP or
// UDP packet from the machine's own address. Pings are only answered by the gateway, which is all that can be told.
func (e *tunEnd) deliver(b []byte) {
	proto := tcpip.NetworkProtocolNumber(0)
	switch {
	case len(b) >= header.IPv4MinimumSize && b[0]>>4 == 4:
		h := header.IPv4(b)
		if h.SourceAddress() != tcpip.AddrFrom4(machine4.As4()) || h.Protocol() != uint8(tcp.ProtocolNumber) && h.Protocol() != uint8(udp.ProtocolNumber) && h.DestinationAddress() != tcpip.AddrFrom4(gateway4.As4()) {
			return
		}
		proto = ipv4.ProtocolNumber
	case len(b) >= header.IPv6MinimumSize && b[0]>>4 == 6 && e.v6:
		h := header.IPv6(b)
		if h.SourceAddress() != tcpip.AddrFrom16(machine6.As16()) || h.NextHeader() == uint8(header.ICMPv6ProtocolNumber) && h.DestinationAddress() != tcpip.AddrFrom16(gateway6.As16()) {
			return
		}
		proto = ipv6.ProtocolNumber
	default:
		return
	}
	e.mu.RLock()
	d := e.dispatcher
	e.mu.RUnlock()
	if d == nil {
		return
	}
	p := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(b)})
	d.DeliverNetworkPacket(proto, p)
	p.DecRef()
}

// WritePackets implements stack.LinkWriter.
func (e *tunEnd) WritePackets(list stack.PacketBufferList) (int, tcpip.Error) {
	n := 0
	for _, p := range list.AsSlice() {
		v := p.ToView()
		_, err := e.link.Write(v.AsSlice())
		v.Release()
		if err != nil {
			if errors.Is(err, io.ErrClosedPipe) || errors.Is(err, os.ErrClosed) {
				return n, &tcpip.ErrClosedForSend{}
			}
			return n, &tcpip.ErrNoBufferSpace{}
		}
		n++
	}
	return n, nil
}

// The rest of stack.LinkEndpoint: a link without addresses and headers of its own.

func (e *tunEnd) Attach(d stack.NetworkDispatcher) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.dispatcher = d
}

func (e *tunEnd) IsAttached() bool {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return e.dispatcher != nil
}

func (*tunEnd) MTU() uint32                      { return mtu }
func (*tunEnd) SetMTU(uint32)                    {}
func (*tunEnd) MaxHeaderLength() uint16          { return 0 }
func (*tunEnd) LinkAddress() tcpip.LinkAddress   { return "" }
func (*tunEnd) SetLinkAddress(tcpip.LinkAddress) {}
func (*tunEnd) Capabilities() stack.LinkEndpointCapabilities {
	return stack.CapabilityRXChecksumOffload
}
func (*tunEnd) Wait()                                   {}
func (*tunEnd) ARPHardwareType() header.ARPHardwareType { return header.ARPHardwareNone }
func (*tunEnd) AddHeader(*stack.PacketBuffer)           {}
func (*tunEnd) ParseHeader(*stack.PacketBuffer) bool    { return true }
func (*tunEnd) Close()                                  {}
func (*tunEnd) SetOnCloseAction(func())                 {}

var _ stack.LinkEndpoint = (*tunEnd)(nil)

// addrPort is what a program asked for; a form that is not its family's own is no address.
func addrPort(a tcpip.Address, port uint16) netip.AddrPort {
	addr, _ := netip.AddrFromSlice(a.AsSlice())
	return netip.AddrPortFrom(addr, port)
}
