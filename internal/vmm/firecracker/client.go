package firecracker

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"

	"outpost.run/outpost/internal/vmm"
)

// What the monitor is asked, in the words of its API. Source: src/firecracker/swagger/firecracker.yaml of Firecracker, 1.12.1 and later.
type (
	machineConfig struct {
		VCPUs    int  `json:"vcpu_count"`
		MemoryMB int  `json:"mem_size_mib"`
		SMT      bool `json:"smt"`
	}
	bootSource struct {
		Kernel    string `json:"kernel_image_path"`
		Initrd    string `json:"initrd_path"`
		Arguments string `json:"boot_args"`
	}
	drive struct {
		ID       string `json:"drive_id"`
		Path     string `json:"path_on_host"`
		Root     bool   `json:"is_root_device"`
		ReadOnly bool   `json:"is_read_only"`
		Cache    string `json:"cache_type"` // Unsafe: a guest's flushes are answered at once; Writeback: when they are done
		Engine   string `json:"io_engine"`
	}
	driveChange struct {
		ID   string `json:"drive_id"`
		Path string `json:"path_on_host"`
	}
	vsock struct {
		CID    uint32 `json:"guest_cid"`
		Socket string `json:"uds_path"`
	}
	action struct {
		Type string `json:"action_type"`
	}
	vmState struct {
		State string `json:"state"`
	}
	snapshotCreate struct {
		Memory string `json:"mem_file_path"`
		State  string `json:"snapshot_path"`
		Type   string `json:"snapshot_type"`
	}
	snapshotLoad struct {
		Backend memoryBackend `json:"mem_backend"`
		State   string        `json:"snapshot_path"`
		Resume  bool          `json:"resume_vm"`
	}
	memoryBackend struct {
		Path string `json:"backend_path"`
		Type string `json:"backend_type"`
	}
)

// call is one request.
type call struct {
	method, path string
	body         any
}

// client speaks to one monitor's API.
type client struct{ http http.Client }

func newClient(socket string) *client {
	return &client{http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return vmm.DialSocket(ctx, socket) },
	}}}
}

// answerMost bounds what a monitor may answer: it may have been taken over by its guest.
const answerMost = 64 << 10

func (c *client) do(ctx context.Context, all ...call) error {
	for _, x := range all {
		if err := c.one(ctx, x); err != nil {
			return fmt.Errorf("firecracker: %s %s: %w", x.method, x.path, err)
		}
	}
	return nil
}

func (c *client) one(ctx context.Context, x call) error {
	var body io.Reader
	if x.body != nil {
		b, err := json.Marshal(x.body)
		if err != nil {
			return err
		}
		body = bytes.NewReader(b)
	}
	r, err := http.NewRequestWithContext(ctx, x.method, "http://firecracker"+x.path, body)
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/json")
	answer, err := c.http.Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(io.LimitReader(answer.Body, answerMost))
	if err != nil {
		return err
	}
	if answer.StatusCode/100 != 2 {
		var fault struct {
			Message string `json:"fault_message"`
		}
		if json.Unmarshal(text, &fault) != nil || fault.Message == "" {
			fault.Message = string(text)
		}
		return fmt.Errorf("%s: %.500s", answer.Status, fault.Message)
	}
	return nil
}
