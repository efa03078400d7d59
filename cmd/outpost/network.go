package main

import (
	"log/slog"

	"outpost.run/outpost/internal/config"
	"outpost.run/outpost/internal/engine"
	"outpost.run/outpost/internal/host/netns"
	"outpost.run/outpost/internal/network"
)

func openNetwork(c config.Ports, log *slog.Logger) (*network.Network, error) {
	o := network.Options{Log: log, Interface: engine.EgressInterface}
	o.Bind, o.First, o.Last = c.Published()
	return network.Open(o)
}

// ofNetwork says whether sandboxes can have egress here.
func ofNetwork() finding {
	x := check{Name: "tun devices", OK: true, Found: netns.Device}
	if err := netns.ProbeTun(); err != nil {
		x.OK, x.Found = false, err.Error()
		x.Mend = "modprobe tun, and give a container " + netns.Device + "; without it only sandboxes with egress none can be made"
	}
	return finding{Name: "network", Usable: x.OK, Checks: []check{x}}
}
