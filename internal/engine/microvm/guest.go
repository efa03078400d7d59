package microvm

import _ "embed"

// Keeper is the first process of guests.
//
//go:embed guest.bin
var Keeper []byte // made by `make build` from cmd/outpost-guest
