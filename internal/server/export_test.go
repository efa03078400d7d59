package server

import (
	"time"

	"outpost.run/outpost/sandbox"
)

// StatusOf is the row of a code.
func StatusOf(c sandbox.Code) int { return statuses[c] }

// SetHeaderTime shortens the time for headers; undo puts it back.
func SetHeaderTime(d time.Duration) (undo func()) {
	before := headerTime
	headerTime = d
	return func() { headerTime = before }
}
