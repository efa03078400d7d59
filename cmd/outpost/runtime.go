package main

import (
	"context"
	"errors"
	"log/slog"

	"outpost.run/outpost/internal/config"
	"outpost.run/outpost/internal/service"
)

// newRuntime makes the runtime of this host.
func newRuntime(context.Context, config.Config, *slog.Logger) (service.Runtime, error) {
	return nil, errors.New("this build has no runtime")
}
