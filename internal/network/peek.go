package network

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"outpost.run/outpost/sandbox"
)

// named is the machine's side of a connection that is allowed by a name: before a byte is passed on, what it says of the
// name it wants must be allowed, too. That is TLS's server name and HTTP's host; of another protocol nothing is known but
// the address.
type named struct {
	from    deadlineReader
	allowed func(host string) bool
	begun   bool
	rest    io.Reader
}

type deadlineReader interface {
	io.Reader
	SetReadDeadline(time.Time) error
}

const (
	maxHello  = 64 << 10
	helloTime = 30 * time.Second // from the first byte to the end of what says the name
)

var (
	errName = errors.New("another name than those allowed")
	errLong = errors.New("no name in as much as is looked at")
)

// atMost reads so many bytes. More is an error: it must not look like the end of what the machine says.
type atMost struct {
	from io.Reader
	left int
}

func (a *atMost) Read(b []byte) (int, error) {
	if a.left == 0 {
		return 0, errLong
	}
	n, err := a.from.Read(b[:min(len(b), a.left)])
	a.left -= n
	return n, err
}

func (n *named) Read(b []byte) (int, error) {
	if !n.begun {
		n.begun = true
		seen, err := n.begin()
		if err != nil {
			return 0, err
		}
		n.rest = io.MultiReader(bytes.NewReader(seen), n.from)
	}
	return n.rest.Read(b)
}

// begin reads what says the name, and gives what it has read.
func (n *named) begin() ([]byte, error) {
	first := make([]byte, 4096)
	got, err := n.from.Read(first)
	if got == 0 {
		if err == io.EOF { // nothing was ever said
			return nil, nil
		}
		return nil, err
	}
	var seen bytes.Buffer
	source := io.TeeReader(&atMost{io.MultiReader(bytes.NewReader(first[:got]), n.from), maxHello}, &seen)
	if err := n.from.SetReadDeadline(time.Now().Add(helloTime)); err != nil {
		return nil, err
	}
	ok := true
	switch {
	case first[0] >= 0x14 && first[0] <= 0x18: // a TLS record; warnings may come before the handshake. Source: RFC 8446, section 5.1
		name, err := serverName(source)
		ok = err == nil && n.allowed(sandbox.CleanHost(name))
	case mayBeHTTP(first[:got]):
		ok = n.httpHosts(source)
	}
	if !ok {
		return nil, errName
	}
	if err := n.from.SetReadDeadline(time.Time{}); err != nil {
		return nil, err
	}
	if seen.Len() < got { // not all of the first bytes were looked at
		return append(seen.Bytes(), first[seen.Len():got]...), nil
	}
	return seen.Bytes(), nil
}

// serverName reads a ClientHello as crypto/tls does and gives the name it asks for.
func serverName(from io.Reader) (string, error) {
	name, stop := "", errors.New("seen")
	err := tls.Server(readOnly{from}, &tls.Config{GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		name = hello.ServerName
		return nil, stop
	}}).Handshake()
	if errors.Is(err, stop) {
		return name, nil
	}
	return "", err
}

// readOnly is a connection from which a handshake is read and to which nothing goes.
type readOnly struct{ io.Reader }

func (readOnly) Write(b []byte) (int, error)      { return len(b), nil }
func (readOnly) Close() error                     { return nil }
func (readOnly) LocalAddr() net.Addr              { return nil }
func (readOnly) RemoteAddr() net.Addr             { return nil }
func (readOnly) SetDeadline(time.Time) error      { return nil }
func (readOnly) SetReadDeadline(time.Time) error  { return nil }
func (readOnly) SetWriteDeadline(time.Time) error { return nil }

// spaces are what lenient servers take for white space around a method.
const spaces = " \t\v\f\x1c\x1d\x1e\x1f\x85\xa0"

func isSpace(c byte) bool { return strings.IndexByte(spaces, c) >= 0 }

// mayBeHTTP: it begins as a request does, with a method and white space, or may yet.
func mayBeHTTP(b []byte) bool {
	for len(b) > 0 && (isSpace(b[0]) || b[0] == '\r' || b[0] == '\n') {
		b = b[1:]
	}
	for i, c := range b {
		switch {
		case isSpace(c):
			return i > 0
		case !isToken(c):
			return false
		}
	}
	return true
}

// isToken: it may be in a method. Source: RFC 9110, section 5.6.2
func isToken(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0
}

// httpHosts: every host that the first request names is allowed, in its target as in its Host. What only looks like a
// request does not pass, since it is not known what a server makes of it; a line that names no version of HTTP does,
// unless it names another host.
func (n *named) httpHosts(from io.Reader) bool {
	r := bufio.NewReaderSize(from, 4096)
	for { // servers pass over empty lines before a request
		c, err := r.ReadByte()
		if err != nil {
			return err == io.EOF
		}
		if c != '\r' && c != '\n' && !isSpace(c) {
			_ = r.UnreadByte()
			break
		}
	}
	line, err := r.ReadString('\n')
	if err != nil && err != io.EOF {
		return false
	}
	if !strings.Contains(strings.ToUpper(line), "HTTP/") {
		return n.targetAllowed(line)
	}
	req, err := http.ReadRequest(bufio.NewReader(io.MultiReader(strings.NewReader(line), r)))
	if err != nil {
		return false
	}
	return n.hostAllowed(req.Host) && (req.URL.Host == "" || n.hostAllowed(req.URL.Host))
}

// targetAllowed judges a line that names no version: servers that take it for HTTP 0.9 read no Host, but some obey a host
// in its target.
func (n *named) targetAllowed(line string) bool {
	for _, word := range strings.FieldsFunc(line, func(c rune) bool { return c == '\r' || c == '\n' || c < 0x80 && isSpace(byte(c)) }) {
		if !strings.Contains(word, "://") {
			continue
		}
		target, err := url.Parse(word)
		if err != nil || !n.hostAllowed(target.Host) {
			return false
		}
	}
	return true
}

func (n *named) hostAllowed(host string) bool {
	u := url.URL{Host: host}
	return n.allowed(sandbox.CleanHost(u.Hostname()))
}
