package main

import (
	"errors"
	"strings"
	"time"

	"outpost.run/outpost/sandbox"
)

const (
	imagePatience = 30 * time.Minute
	imageLook     = 2 // seconds that one call waits for an image, so that its progress can be shown
)

// awaitingImage makes a call that may need an image which is still being made, and shows how far it is. wait is what the user said; nil:
// as long as it takes.
func awaitingImage(how *progress, wait *int, call func(wait *int) error) error {
	if wait != nil {
		return call(wait)
	}
	defer how.end()
	for end := time.Now().Add(imagePatience); ; {
		err := call(new(imageLook))
		e, is := errors.AsType[*sandbox.Error](err)
		if !is || e.Code != sandbox.ImagePreparing || time.Now().After(end) {
			return err
		}
		how.say(strings.TrimSuffix(e.Message, "; try again"), 0, 0)
	}
}
