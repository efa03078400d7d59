package client

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"

	"outpost.run/outpost/sandbox"
)

func (c *Client) files(id, what, name string) string {
	elements := []string{id, "files"}
	if what != "" {
		elements = append(elements, what)
	}
	return c.inNamespace(elements...) + "?path=" + url.QueryEscape(name)
}

// File is one that comes from a sandbox; the caller closes it.
type File struct {
	io.ReadCloser
	Size int64  // bytes, -1 where that is not known
	Mode uint32 // permission bits
}

// GetFile gives a file of a stateful sandbox from an offset on. Relative paths begin at its working directory.
func (c *Client) GetFile(ctx context.Context, id, name string, offset int64) (File, error) {
	h := http.Header{}
	if offset > 0 {
		h.Set("Range", fmt.Sprintf("bytes=%d-", offset))
	}
	res, err := c.send(ctx, http.MethodGet, c.files(id, "", name), nil, h)
	if err != nil {
		return File{}, err
	}
	mode, _ := strconv.ParseUint(res.Header.Get("X-File-Mode"), 8, 32)
	return File{res.Body, res.ContentLength, uint32(mode) & 0o777}, nil
}

// IsFolder says whether there is a folder of that name in a stateful sandbox; what goes wrong with the question says nothing.
func (c *Client) IsFolder(ctx context.Context, id, name string) bool {
	res, err := c.send(ctx, http.MethodGet, c.files(id, "", name), nil, http.Header{"Range": {"bytes=0-0"}})
	if err == nil {
		res.Body.Close()
	}
	return sandbox.CodeOf(err) == sandbox.IsADirectory
}

// PutFile writes a file of a stateful sandbox, and the folders above it. size is -1 where it is not known; mode 0 leaves the
// permission bits to the server.
func (c *Client) PutFile(ctx context.Context, id, name string, content io.Reader, size int64, mode uint32) error {
	at := c.files(id, "", name)
	if mode != 0 {
		at += "&mode=" + strconv.FormatUint(uint64(mode), 8)
	}
	return c.upload(ctx, at, "application/octet-stream", content, size)
}

// DeleteFile deletes a file of a stateful sandbox, or a folder with all that is in it.
func (c *Client) DeleteFile(ctx context.Context, id, name string) error {
	_, err := c.Raw(ctx, http.MethodDelete, c.files(id, "", name), nil)
	return err
}

// ListFiles gives the entries of a folder of a stateful sandbox.
func (c *Client) ListFiles(ctx context.Context, id, name string) ([]sandbox.FileInfo, error) {
	l, err := call[sandbox.List[sandbox.FileInfo]](ctx, c, http.MethodGet, c.files(id, "list", name), nil)
	return l.Data, err
}

// Mkdir makes a folder of a stateful sandbox, and those above it.
func (c *Client) Mkdir(ctx context.Context, id, name string) error {
	_, err := c.Raw(ctx, http.MethodPost, c.inNamespace(id, "files", "mkdir"), sandbox.MkdirRequest{Path: &name})
	return err
}

// GetArchive gives a folder of a stateful sandbox as a tar archive with names below it; the caller closes it.
func (c *Client) GetArchive(ctx context.Context, id, name string) (io.ReadCloser, error) {
	res, err := c.send(ctx, http.MethodGet, c.files(id, "archive", name), nil, nil)
	if err != nil {
		return nil, err
	}
	return res.Body, nil
}

// PutArchive unpacks a tar archive in a folder of a stateful sandbox, which is made where it is missing.
func (c *Client) PutArchive(ctx context.Context, id, name string, archive io.Reader) error {
	return c.upload(ctx, c.files(id, "archive", name), "application/x-tar", archive, -1)
}

func (c *Client) upload(ctx context.Context, path, kind string, content io.Reader, size int64) error {
	res, err := c.send(ctx, http.MethodPut, path, bytesBody{content, size, kind}, nil)
	if err != nil {
		return err
	}
	return res.Body.Close()
}

// bytesBody is a request's body that is no JSON.
type bytesBody struct {
	io.Reader
	size int64
	kind string
}

// Processes are those that run in a stateful sandbox.
func (c *Client) Processes(ctx context.Context, id string) ([]sandbox.Process, error) {
	l, err := call[sandbox.List[sandbox.Process]](ctx, c, http.MethodGet, c.inNamespace(id, "processes"), nil)
	return l.Data, err
}

// Signal sends a signal (SIGTERM) to a process of a stateful sandbox, by its number inside.
func (c *Client) Signal(ctx context.Context, id string, pid int, signal string) error {
	_, err := c.Raw(ctx, http.MethodPost, c.inNamespace(id, "processes", strconv.Itoa(pid), "signal"), sandbox.SignalRequest{Signal: &signal})
	return err
}
