package network

import (
	"context"
	"encoding/binary"
	"io"
	"net/netip"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"

	"outpost.run/outpost/sandbox"
)

const (
	linkQuestions = 64  // of one machine at once
	questionRate  = 300 // of one machine a second; what comes over it is lost, or waits on a stream
	questionBurst = 600
	allQuestions  = 1024    // of all machines
	maxQuestion   = 4 << 10 // bytes
	plainAnswer   = 512     // bytes that every client takes by UDP. Source: RFC 1035, section 2.3.4
	largeAnswer   = 1232    // bytes that pass every network unfragmented; also what is asked of upstream
	dnsIdle       = 10 * time.Second
)

// listenDNS takes questions by UDP at the gateway's address.
func (l *Link) listenDNS(s *inner) (*gonet.UDPConn, error) {
	return gonet.DialUDP(s.Stack, &tcpip.FullAddress{NIC: nicID, Addr: tcpip.AddrFrom4(gateway4.As4()), Port: 53}, nil, protocolOf(gateway4))
}

// serveDatagrams answers until conn is closed. A question for which there is no room is lost, as datagrams are.
func (l *Link) serveDatagrams(conn *gonet.UDPConn) {
	buf := make([]byte, maxQuestion)
	for {
		n, from, err := conn.ReadFrom(buf)
		if err != nil {
			if l.ctx.Err() != nil {
				return
			}
			continue
		}
		if !l.rate.Allow() || !l.asking.take(1) {
			continue
		}
		if !l.begin() {
			return
		}
		question := append([]byte(nil), buf[:n]...)
		go func() {
			defer l.work.Done()
			defer l.asking.give(1)
			if answer := l.answer(question, true); answer != nil {
				_, _ = conn.WriteTo(answer, from)
			}
		}()
	}
}

// serveStream answers on one connection until it is idle or closed. Source: RFC 7766.
func (l *Link) serveStream(conn *insider) {
	defer conn.Close()
	defer l.net.buffers.give(2 * conn.buffer)
	defer context.AfterFunc(l.ctx, conn.end.Abort)()
	var size [2]byte
	for {
		_ = conn.SetReadDeadline(time.Now().Add(dnsIdle))
		if _, err := io.ReadFull(conn, size[:]); err != nil {
			return
		}
		question := make([]byte, binary.BigEndian.Uint16(size[:]))
		if len(question) > maxQuestion {
			return
		}
		if _, err := io.ReadFull(conn, question); err != nil {
			return
		}
		if l.rate.Wait(l.ctx) != nil {
			return
		}
		answer := l.answer(question, false)
		if answer == nil {
			return
		}
		if _, err := conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(answer))), answer...)); err != nil {
			return
		}
	}
}

// answer answers one question; nil for what is none.
func (l *Link) answer(question []byte, datagram bool) []byte {
	var p dnsmessage.Parser
	head, err := p.Start(question)
	if err != nil || head.Response {
		return nil
	}
	reply := reply{id: head.ID, desired: head.RecursionDesired}
	q, err := p.Question()
	if err != nil || p.SkipAllQuestions() != nil {
		return reply.fail(dnsmessage.RCodeFormatError)
	}
	reply.question = &q
	room := 0xffff
	if datagram {
		room = roomFor(&p)
	}
	name := sandbox.CleanHost(q.Name.String())
	switch {
	case head.OpCode != 0 || q.Class != dnsmessage.ClassINET || q.Type == dnsmessage.TypeALL || q.Type == dnsmessage.TypeAXFR:
		return reply.fail(dnsmessage.RCodeNotImplemented)
	case !isInternetName(q.Name.String()) || !l.rules.resolves(name):
		return reply.fail(dnsmessage.RCodeNameError)
	}
	if !l.net.asking.take(1) {
		return reply.fail(dnsmessage.RCodeServerFailure)
	}
	defer l.net.asking.give(1)
	got, err := l.net.names.ask(l.ctx, q)
	if err != nil {
		return reply.fail(dnsmessage.RCodeServerFailure)
	}
	reply.code = got.code
	addresses, ttl := []netip.Addr{}, uint32(0)
	for _, r := range got.answers {
		a, is := addressOf(r)
		if is && l.net.reachable(a) != nil {
			continue // nobody inside hears of what can't be reached, nor of what lies in the host's own networks
		}
		if is {
			addresses, ttl = append(addresses, a), max(ttl, r.Header.TTL)
		}
		reply.answers = append(reply.answers, r)
	}
	l.rules.learn(name, addresses, time.Duration(ttl)*time.Second)
	return reply.pack(room)
}

// roomFor is how large an answer the client takes by UDP.
func roomFor(p *dnsmessage.Parser) int {
	if p.SkipAllAnswers() != nil || p.SkipAllAuthorities() != nil {
		return plainAnswer
	}
	for {
		h, err := p.AdditionalHeader()
		if err != nil {
			return plainAnswer
		}
		if h.Type == dnsmessage.TypeOPT {
			return min(max(int(h.Class), plainAnswer), mtu-100)
		}
		if p.SkipAdditional() != nil {
			return plainAnswer
		}
	}
}

// isInternetName refuses names of the host's surroundings, which its resolver may know. Source: RFC 6761, 6762, 7686, 8375,
// and ICANN's reservation of .internal. Addresses may be asked for by their names below arpa if they are public.
func isInternetName(full string) bool {
	name := strings.ToLower(strings.TrimSuffix(full, "."))
	if block, is := strings.CutSuffix(name, ".in-addr.arpa"); is {
		return isPublicReverse(strings.Split(block, "."), 4, ".")
	}
	if block, is := strings.CutSuffix(name, ".ip6.arpa"); is {
		return isPublicReverse(strings.Split(block, "."), 32, "")
	}
	if name = sandbox.CleanHost(name); !strings.Contains(name, ".") {
		return false
	}
	for _, local := range []string{".localhost", ".local", ".internal", ".home.arpa", ".onion", ".localdomain", ".lan"} {
		if strings.HasSuffix(name, local) {
			return false
		}
	}
	return true
}

func isPublicReverse(labels []string, parts int, join string) bool {
	if len(labels) != parts {
		return false
	}
	var text strings.Builder
	for i := range labels {
		if i > 0 && (join != "" || i%4 == 0) {
			text.WriteString(map[bool]string{true: ".", false: ":"}[join != ""])
		}
		text.WriteString(labels[parts-1-i])
	}
	a, err := netip.ParseAddr(text.String())
	return err == nil && sandbox.IsPublic(a)
}

func addressOf(r dnsmessage.Resource) (netip.Addr, bool) {
	switch body := r.Body.(type) {
	case *dnsmessage.AResource:
		return netip.AddrFrom4(body.A), true
	case *dnsmessage.AAAAResource:
		return netip.AddrFrom16(body.AAAA), true
	}
	return netip.Addr{}, false
}

// reply is an answer in the making.
type reply struct {
	id       uint16
	desired  bool
	code     dnsmessage.RCode
	question *dnsmessage.Question
	answers  []dnsmessage.Resource
}

func (r reply) fail(code dnsmessage.RCode) []byte {
	r.code, r.answers = code, nil
	return r.pack(plainAnswer)
}

// pack writes the answer, without its records where they need more room than there is: then the client asks by TCP.
func (r reply) pack(room int) []byte {
	m := dnsmessage.Message{Header: dnsmessage.Header{
		ID: r.id, Response: true, RecursionDesired: r.desired, RecursionAvailable: true, RCode: r.code,
	}, Answers: r.answers}
	if r.question != nil {
		m.Questions = []dnsmessage.Question{*r.question}
	}
	b, err := m.Pack()
	if err == nil && len(b) > room {
		m.Truncated, m.Answers = true, nil
		b, err = m.Pack()
	}
	if err != nil {
		return nil
	}
	return b
}
