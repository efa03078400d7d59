// Package policy says what a request amounts to: presets, the operator's floor and maxima, defaults and quotas.
// It is pure: the same request and the same policy give the same answer.
package policy

import (
	"net/netip"
	"slices"
	"strings"

	"outpost.run/outpost/sandbox"
)

// Policy is the operator's word. Zero values are not sensible; start from Default.
type Policy struct {
	AllowSeccompDisabled bool
	Floor                sandbox.Preset    // no sandbox is less closed off than this preset
	Defaults             sandbox.Limits    // what a request gets that names no limit
	Maximum              Maximum           // what no request goes over
	Quota                Quota             // what one namespace may have in all
	Images               map[string]string // by language; a language without an image is not served
	MicroVM              string            // why no microVM can be had here, and what mends it; "": it can
	CallbackAllow        []netip.Prefix    // addresses that are not public, but may be called back
	MicroVMDefault       bool              // a request that says nothing of a jailer gets a microVM
}

// Maximum is the most that one request may ask for.
type Maximum struct {
	MemoryMB   int
	CPUCores   float64
	TimeoutMS  int
	DiskMB     int
	DiskSizeGB int
	Pids       int
}

// Quota is what one namespace may have in all.
type Quota struct {
	Sandboxes       int
	ConcurrentExecs int // those that wait for their turn included
}

// Default is the policy of a configuration that says nothing.
func Default() Policy {
	return Policy{
		Floor:    sandbox.Development,
		Defaults: sandbox.Limits{MemoryMB: 512, CPUCores: 1, TimeoutMS: 30_000, DiskMB: 512, Pids: 256},
		Maximum:  Maximum{MemoryMB: 8192, CPUCores: 8, TimeoutMS: 3_600_000, DiskMB: 10_240, DiskSizeGB: 100, Pids: 4096},
		Quota:    Quota{Sandboxes: 1000, ConcurrentExecs: 100},
		Images: map[string]string{
			"python": "deb:trixie?include=python3", "node": "deb:trixie?include=nodejs", "go": "deb:trixie?include=golang-go",
			"rust": "deb:trixie?include=rustc", "bash": "deb:trixie",
		},
		MicroVM: "this server has no microVM engine; leave jailer_enabled out to get a container, " +
			"or ask an operator whose server has Firecracker, its jailer and KVM",
	}
}

// known are the languages of the contract.
var known = []string{"python", "node", "rust", "go", "bash"}

// Languages are those that this server has, in the contract's order.
func (p Policy) Languages() []string {
	var have []string
	for _, l := range known {
		if p.Images[l] != "" {
			have = append(have, l)
		}
	}
	return have
}

// KnownLanguages are all that the contract names, for filters.
func KnownLanguages() []string { return slices.Clone(known) }

// checkLanguage gives nil or UnsupportedLanguage.
func (p Policy) checkLanguage(language string) error {
	if p.Images[language] != "" {
		return nil
	}
	f := sandbox.Faults{{Field: "language", Reason: "is not one of this server's, which are " + strings.Join(p.Languages(), ", ")}}
	return f.Err(sandbox.UnsupportedLanguage)
}
