package main

import (
	"fmt"
	"io"
	"time"
)

// bar shows how far a copy is, on a terminal; elsewhere nothing.
type bar struct {
	w     io.Writer // nil: nobody looks
	name  string
	size  int64 // -1: unknown
	n     int64
	began time.Time
	drawn time.Time
}

const (
	redraw = 100 * time.Millisecond
	quick  = 300 * time.Millisecond // what is over sooner shows no bar
)

func newBar(w io.Writer, name string, size int64) *bar {
	b := &bar{name: name, size: size, began: time.Now()}
	if onTerminal(w) {
		b.w = w
	}
	return b
}

// reading passes a reader through and counts.
func (b *bar) reading(r io.Reader) io.Reader { return counting{r, b} }

type counting struct {
	io.Reader
	b *bar
}

// Read implements io.Reader.
func (c counting) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.b.n += int64(n)
	if now := time.Now(); c.b.w != nil && now.Sub(c.b.began) > quick && now.Sub(c.b.drawn) > redraw {
		c.b.drawn = now
		c.b.draw()
	}
	return n, err
}

func (b *bar) draw() {
	speed := float64(b.n) / time.Since(b.began).Seconds()
	if b.size <= 0 {
		drawLine(b.w, fmt.Sprintf("%s  %s  %s/s", printable(b.name), inUnits(float64(b.n)), inUnits(speed)))
		return
	}
	drawLine(b.w, fmt.Sprintf("%s  %s  %s of %s  %s/s", printable(b.name), gauge(b.n, b.size), inUnits(float64(b.n)), inUnits(float64(b.size)), inUnits(speed)))
}

func (b *bar) end() {
	if b.w != nil && !b.drawn.IsZero() {
		b.draw()
		fmt.Fprintln(b.w)
	}
}

// inUnits is a number of bytes for people.
func inUnits(n float64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB"}
	for n >= 1024 && len(units) > 1 {
		n, units = n/1024, units[1:]
	}
	if units[0] == "B" {
		return fmt.Sprintf("%.0f B", n)
	}
	return fmt.Sprintf("%.1f %s", n, units[0])
}
