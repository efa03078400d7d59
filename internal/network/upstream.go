package network

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// upstream is the host's own resolver configuration, read again when the file has changed.
type upstream struct {
	path string

	mu      sync.Mutex
	stamp   time.Time
	size    int64
	servers []string
}

const (
	defaultResolvConf = "/etc/resolv.conf"
	serverTime        = 3 * time.Second // for one answer of one server
	rounds            = 2               // in which each server is asked
	maxServers        = 3               // Source: resolv.conf(5), MAXNS
)

func newUpstream(path string) *upstream {
	if path == "" {
		path = defaultResolvConf
	}
	return &upstream{path: path}
}

func (u *upstream) read() []string {
	u.mu.Lock()
	defer u.mu.Unlock()
	st, err := os.Stat(u.path)
	if err != nil || st.ModTime().Equal(u.stamp) && st.Size() == u.size {
		return u.servers
	}
	b, err := os.ReadFile(u.path)
	if err != nil {
		return u.servers
	}
	u.stamp, u.size, u.servers = st.ModTime(), st.Size(), nil
	lines := bufio.NewScanner(bytes.NewReader(b))
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		if len(f) < 2 || f[0] != "nameserver" || len(u.servers) == maxServers {
			continue
		}
		if a, err := netip.ParseAddr(f[1]); err == nil {
			u.servers = append(u.servers, netip.AddrPortFrom(a, 53).String())
		}
	}
	if len(u.servers) == 0 {
		u.servers = []string{"127.0.0.1:53"} // as the C library does
	}
	return u.servers
}

// found is what upstream said.
type found struct {
	code    dnsmessage.RCode
	answers []dnsmessage.Resource
}

var errNoAnswer = errors.New("no name server answered")

// ask asks one server after the other.
func (u *upstream) ask(ctx context.Context, q dnsmessage.Question) (found, error) {
	for range rounds {
		for _, server := range u.read() {
			if f, err := askServer(ctx, server, q); err == nil && f.code != dnsmessage.RCodeServerFailure && f.code != dnsmessage.RCodeRefused {
				return f, nil
			}
			if ctx.Err() != nil {
				return found{}, ctx.Err()
			}
		}
	}
	return found{}, errNoAnswer
}

func askServer(ctx context.Context, server string, q dnsmessage.Question) (found, error) {
	ctx, cancel := context.WithTimeout(ctx, serverTime)
	defer cancel()
	f, truncated, err := exchange(ctx, "udp", server, q)
	if err == nil && truncated {
		f, _, err = exchange(ctx, "tcp", server, q)
	}
	return f, err
}

func exchange(ctx context.Context, network, server string, q dnsmessage.Question) (f found, truncated bool, err error) {
	id := uint16(rand.Uint32())
	query, err := pack(id, q)
	if err != nil {
		return f, false, err
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, network, server) // a port of its own each, which nobody can guess
	if err != nil {
		return f, false, err
	}
	defer conn.Close()
	if end, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(end)
	}
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	if network == "tcp" {
		query = append(binary.BigEndian.AppendUint16(nil, uint16(len(query))), query...)
	}
	if _, err := conn.Write(query); err != nil {
		return f, false, err
	}
	for buf := make([]byte, 0xffff); ; {
		n := 0
		if network == "tcp" {
			n, err = readSized(conn, buf)
		} else {
			n, err = conn.Read(buf)
		}
		if err != nil {
			return f, false, err
		}
		if f, truncated, ok := parse(buf[:n], id, q); ok {
			return f, truncated, nil
		}
		if network == "tcp" {
			return f, false, errNoAnswer
		} // by UDP anybody may have sent it
	}
}

func readSized(conn io.Reader, buf []byte) (int, error) {
	if _, err := io.ReadFull(conn, buf[:2]); err != nil {
		return 0, err
	}
	n := int(binary.BigEndian.Uint16(buf))
	return io.ReadFull(conn, buf[:n])
}

func pack(id uint16, q dnsmessage.Question) ([]byte, error) {
	b := dnsmessage.NewBuilder(nil, dnsmessage.Header{ID: id, RecursionDesired: true})
	if err := b.StartQuestions(); err != nil {
		return nil, err
	}
	if err := b.Question(q); err != nil {
		return nil, err
	}
	if err := b.StartAdditionals(); err != nil {
		return nil, err
	}
	var options dnsmessage.ResourceHeader
	if err := options.SetEDNS0(largeAnswer, dnsmessage.RCodeSuccess, false); err != nil {
		return nil, err
	}
	if err := b.OPTResource(options, dnsmessage.OPTResource{}); err != nil {
		return nil, err
	}
	return b.Finish()
}

// parse reads an answer to the question; not ok is what is none.
func parse(b []byte, id uint16, q dnsmessage.Question) (f found, truncated, ok bool) {
	var p dnsmessage.Parser
	head, err := p.Start(b)
	if err != nil || !head.Response || head.ID != id {
		return f, false, false
	}
	got, err := p.Question()
	if err != nil || got.Type != q.Type || got.Class != q.Class || !strings.EqualFold(got.Name.String(), q.Name.String()) {
		return f, false, false
	}
	if err := p.SkipAllQuestions(); err != nil {
		return f, false, false
	}
	if head.Truncated {
		return f, true, true
	}
	answers, err := p.AllAnswers()
	if err != nil {
		return f, false, false
	}
	return found{head.RCode, answers}, false, true
}
