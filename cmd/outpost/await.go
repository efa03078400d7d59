package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"outpost.run/outpost/sandbox"
)

const (
	imagePatience = 30 * time.Minute
	imageLook     = 2 // seconds that one call waits for an image, so that its progress can be shown
)

// awaitingImage makes a call that may need an image which is still being made, and shows how far it is. wait is what the
// user said; nil: as long as it takes.
func awaitingImage(cmd *cobra.Command, wait *int, call func(wait *int) error) error {
	if wait != nil {
		return call(wait)
	}
	said := ""
	for end := time.Now().Add(imagePatience); ; {
		err := call(new(imageLook))
		e, is := errors.AsType[*sandbox.Error](err)
		if !is || e.Code != sandbox.ImagePreparing || time.Now().After(end) {
			if said != "" && onTerminal(cmd.ErrOrStderr()) {
				fmt.Fprintln(cmd.ErrOrStderr())
			}
			return err
		}
		if now := strings.TrimSuffix(e.Message, "; try again"); now != said {
			said = now
			if onTerminal(cmd.ErrOrStderr()) {
				fmt.Fprintf(cmd.ErrOrStderr(), "\r\x1b[K%s", now) // erase in line, ECMA-48
			} else {
				fmt.Fprintln(cmd.ErrOrStderr(), now)
			}
		}
	}
}
