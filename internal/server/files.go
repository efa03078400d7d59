package server

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"outpost.run/outpost/internal/service"
	"outpost.run/outpost/sandbox"
)

var (
	pathParam  = param{name: "path", doc: "in the sandbox; relative to its working directory"}
	fileParams = []param{pathParam}
	putParams  = []param{pathParam, {name: "mode", doc: "permission bits of the file, in octal; those it has, or 0644, unless given"}}
)

// fileCall reads the query of a call on files.
func (c *call) fileCall(verb sandbox.FileVerb, params []param) (service.FileOp, url.Values, sandbox.Faults) {
	q, faults := readQuery(c.rawQuery, params)
	if !q.Has("path") {
		faults.Add("path", "is required")
	}
	c.trace.names("path", q.Get("path"))
	return service.FileOp{Verb: verb, Path: q.Get("path")}, q, faults
}

// noBody is the size where there is none.
const noBody = 0

// plainFileCall is one that brings nothing.
func (s *Server) plainFileCall(c *call, verb sandbox.FileVerb, size int64, body io.Reader) error {
	op, _, faults := c.fileCall(verb, fileParams)
	if err := faults.Err(sandbox.Invalid); err != nil {
		return err
	}
	return s.svc.Files(c.ctx, c.namespace, c.id, op, size, body, nothing{})
}

func (s *Server) putFile(c *call) (any, error) {
	op, q, faults := c.fileCall(sandbox.PutFile, putParams)
	if q.Has("mode") {
		mode, err := strconv.ParseUint(q.Get("mode"), 8, 32)
		if err != nil || mode == 0 || mode > 0o777 {
			faults.Add("mode", "must be permission bits in octal, 0001 to 0777")
		}
		op.Mode = uint32(mode)
	}
	if err := faults.Err(sandbox.Invalid); err != nil {
		return nil, err
	}
	return nil, s.svc.Files(c.ctx, c.namespace, c.id, op, c.size, c.in, nothing{})
}

func (s *Server) deleteFile(c *call) (any, error) {
	return nil, s.plainFileCall(c, sandbox.RemoveFile, noBody, nil)
}

var gzipMagic = []byte{0x1f, 0x8b} // RFC 1952, 2.3.1

func (s *Server) putArchive(c *call) (any, error) {
	in := bufio.NewReader(c.in)
	if head, _ := in.Peek(len(gzipMagic)); bytes.Equal(head, gzipMagic) {
		return nil, sandbox.Errorf(sandbox.Invalid, nil, "the body is a gzip'd tar archive: unpack it with gzip -d first, and send the tar")
	}
	return nil, s.plainFileCall(c, sandbox.Unpack, c.size, in)
}

func (s *Server) mkdir(c *call) (any, error) {
	var r sandbox.MkdirRequest
	faults, err := c.decode(&r)
	if err != nil {
		return nil, err
	}
	if r.Path == nil && !faults.Has("path") {
		faults.Add("path", "is required")
	}
	if err := faults.Err(sandbox.Invalid); err != nil {
		return nil, err
	}
	c.trace.names("path", *r.Path)
	return nil, s.svc.Files(c.ctx, c.namespace, c.id, service.FileOp{Verb: sandbox.MakeFolder, Path: *r.Path}, noBody, nil, nothing{})
}

// nothing is the sink of a call that brings nothing.
type nothing struct{}

// Write implements service.FileSink.
func (nothing) Write(b []byte) (int, error) { return len(b), nil }

// Found implements service.FileSink.
func (nothing) Found(sandbox.FileInfo) error { return nil }

func (s *Server) listFiles(c *call) (any, error) {
	op, _, faults := c.fileCall(sandbox.ListFolder, fileParams)
	if err := faults.Err(sandbox.Invalid); err != nil {
		return nil, err
	}
	all := entries{data: []sandbox.FileInfo{}}
	err := s.svc.Files(c.ctx, c.namespace, c.id, op, noBody, nil, &all)
	slices.SortFunc(all.data, func(a, b sandbox.FileInfo) int { return strings.Compare(a.Name, b.Name) })
	return sandbox.List[sandbox.FileInfo]{Data: all.data}, err
}

// entries collects those of a folder.
type entries struct {
	nothing
	data []sandbox.FileInfo
}

// Found implements service.FileSink.
func (e *entries) Found(info sandbox.FileInfo) error {
	e.data = append(e.data, info)
	return nil
}

func (s *Server) getFile(c *call, w http.ResponseWriter) error {
	op, _, faults := c.fileCall(sandbox.GetFile, fileParams)
	if err := faults.Err(sandbox.Invalid); err != nil {
		return err
	}
	d := &download{w: w}
	op.Offset, op.Length, d.part = readRange(c.header.Get("Range"))
	d.offset, d.length = op.Offset, op.Length
	return d.end(c.trace, s.svc.Files(c.ctx, c.namespace, c.id, op, noBody, nil, d))
}

// headFile answers as getFile does, without the bytes. It asks for one of them, because nobody asks for none.
func (s *Server) headFile(c *call, w http.ResponseWriter) error {
	op, _, faults := c.fileCall(sandbox.GetFile, fileParams)
	if err := faults.Err(sandbox.Invalid); err != nil {
		return err
	}
	op.Length = 1
	d := &download{w: w}
	return d.end(c.trace, s.svc.Files(c.ctx, c.namespace, c.id, op, noBody, nil, headOnly{d}))
}

// headOnly is a download of which nothing is sent but its head.
type headOnly struct{ *download }

// Write implements service.FileSink.
func (headOnly) Write(b []byte) (int, error) { return len(b), nil }

func (s *Server) getArchive(c *call, w http.ResponseWriter) error {
	op, _, faults := c.fileCall(sandbox.PackFolder, fileParams)
	if err := faults.Err(sandbox.Invalid); err != nil {
		return err
	}
	d := &download{w: w, media: "application/x-tar"}
	return d.end(c.trace, s.svc.Files(c.ctx, c.namespace, c.id, op, noBody, nil, d))
}

// readRange understands bytes=N-M and bytes=N-; anything else is no part, as RFC 9110, 14.2 allows.
func readRange(header string) (offset, length int64, part bool) {
	text, is := strings.CutPrefix(header, "bytes=")
	from, to, pair := strings.Cut(text, "-")
	offset, err := strconv.ParseInt(from, 10, 63)
	if !is || !pair || err != nil || offset < 0 {
		return 0, 0, false
	}
	if to == "" {
		return offset, 0, true
	}
	last, err := strconv.ParseInt(to, 10, 63)
	if err != nil || last < offset {
		return 0, 0, false
	}
	return offset, last - offset + 1, true
}

// download is an answer of bytes that are sent as they come.
type download struct {
	w              http.ResponseWriter
	media          string // "" a file's
	part           bool
	offset, length int64
	began          bool
	left           int64 // of a file, to be sent
}

// Found implements service.FileSink.
func (d *download) Found(info sandbox.FileInfo) error {
	if d.part && d.offset > info.Size {
		return sandbox.Errorf(sandbox.Invalid, nil, "the file has %d bytes, and the Range begins after them", info.Size)
	}
	n := info.Size - d.offset
	if d.length > 0 {
		n = min(n, d.length)
	}
	h := d.w.Header()
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Content-Length", strconv.FormatInt(n, 10))
	h.Set("Last-Modified", info.ModifiedAt.UTC().Format(http.TimeFormat))
	h.Set("Accept-Ranges", "bytes")
	h.Set("X-File-Mode", info.Mode)
	status := http.StatusOK
	if d.part && n > 0 {
		h.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", d.offset, d.offset+n-1, info.Size))
		status = http.StatusPartialContent
	}
	d.began, d.left = true, n
	d.w.WriteHeader(status)
	return nil
}

// Write implements service.FileSink.
func (d *download) Write(b []byte) (int, error) {
	if !d.began {
		d.began = true
		d.w.Header().Set("Content-Type", d.media)
		d.w.WriteHeader(http.StatusOK)
	} else if d.media == "" {
		if d.left -= int64(len(b)); d.left < 0 {
			return 0, errors.New("the agent sent more than it announced")
		}
	}
	return patient{d.w}.Write(b)
}

// end is the error of a download that has not begun; one that has is cut off, so that nobody takes what came for the whole.
func (d *download) end(t *trace, err error) error {
	if err != nil && d.began {
		t.fails(err)
		panic(http.ErrAbortHandler)
	}
	return err
}

func (s *Server) processes(c *call) (any, error) {
	all, err := s.svc.Processes(c.ctx, c.namespace, c.id)
	return sandbox.List[sandbox.Process]{Data: all}, err
}

func (s *Server) signal(c *call) (any, error) {
	var r sandbox.SignalRequest
	faults, err := c.decode(&r)
	if err != nil {
		return nil, err
	}
	pid, err := strconv.Atoi(c.pid)
	if err != nil || pid < 1 {
		faults.Add("pid", "must be the number of a process")
	}
	return nil, s.svc.Signal(c.ctx, c.namespace, c.id, pid, r, faults)
}
