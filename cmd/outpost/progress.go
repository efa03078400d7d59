package main

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"golang.org/x/term"

	"outpost.run/outpost/internal/image"
)

// progress is one line on a terminal that says how far long work is; where nobody looks it shows nothing. Safe for concurrent use.
type progress struct {
	w io.Writer // nil: nobody looks

	mu    sync.Mutex
	said  step
	began time.Time
	shown bool
	quit  chan struct{} // nil: the line isn't there
}

// step is what is being done. Done of Total, in whatever unit; Total 0: unknown.
type step struct {
	what        string
	done, total int64
}

// breath is how often a line changes that has nothing new to say but the time.
const breath = time.Second

func newProgress(w io.Writer) *progress {
	p := &progress{}
	if onTerminal(w) {
		p.w = w
	}
	return p
}

// say shows a step. The line stays until end.
func (p *progress) say(what string, done, total int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.w == nil {
		return
	}
	now := step{what, done, total}
	if now == p.said && p.shown {
		return
	}
	if what != p.said.what || p.quit == nil {
		p.began = time.Now()
	}
	p.said = now
	if p.quit == nil {
		p.quit = make(chan struct{})
		go p.breathe(p.quit)
	}
	p.draw()
}

// ofImage is say for the making of an image.
func (p *progress) ofImage(i image.Progress) { p.say(i.Ref+": "+i.Phase, i.Done, i.Total) }

func (p *progress) breathe(quit chan struct{}) {
	tick := time.NewTicker(breath)
	defer tick.Stop()
	for {
		select {
		case <-quit:
			return
		case <-tick.C:
			p.mu.Lock()
			if p.quit == quit {
				p.draw()
			}
			p.mu.Unlock()
		}
	}
}

func (p *progress) draw() {
	text := printable(p.said.what)
	if p.said.total > 0 {
		text += "  " + gauge(p.said.done, p.said.total)
	}
	if passed := time.Since(p.began).Truncate(time.Second); passed >= 2*time.Second {
		text += "  " + passed.String()
	}
	drawLine(p.w, text)
	p.shown = true
}

// above gives a writer whose lines stand above this one: w shows on the same terminal.
func (p *progress) above(w io.Writer) io.Writer {
	if p.w == nil {
		return w
	}
	return above{p, w}
}

type above struct {
	p *progress
	w io.Writer
}

// Write implements io.Writer.
func (a above) Write(b []byte) (int, error) {
	a.p.mu.Lock()
	defer a.p.mu.Unlock()
	a.p.clear()
	n, err := a.w.Write(b)
	if a.p.quit != nil {
		a.p.draw()
	}
	return n, err
}

func (p *progress) clear() {
	if p.shown {
		fmt.Fprint(p.w, clearLine)
		p.shown = false
	}
}

// end takes the line away; a later say brings it back.
func (p *progress) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.quit != nil {
		close(p.quit)
		p.quit = nil
	}
	p.clear()
}

// onTerminal says whether somebody looks, at a terminal that can draw over a line.
func onTerminal(w io.Writer) bool {
	f, is := w.(*os.File)
	return is && term.IsTerminal(int(f.Fd())) && os.Getenv("TERM") != "dumb"
}

const (
	clearLine  = "\r\x1b[K" // erase in line, ECMA-48
	gaugeWidth = 30
	anyColumns = 80 // of a terminal that doesn't say
)

// drawLine writes text over the line that is there, no more than the terminal has columns: a line that wraps can't be drawn over.
func drawLine(w io.Writer, text string) {
	columns := 0
	if f, is := w.(*os.File); is {
		columns, _, _ = term.GetSize(int(f.Fd()))
	}
	if most := cmp.Or(columns, anyColumns) - 1; utf8.RuneCountInString(text) > most {
		text = string([]rune(text)[:most])
	}
	fmt.Fprint(w, clearLine+text)
}

// gauge shows a share as a bar and in percent.
func gauge(done, total int64) string {
	share := min(1, float64(done)/float64(total))
	full := int(share * gaugeWidth)
	return fmt.Sprintf("[%s%s] %3.0f%%", strings.Repeat("#", full), strings.Repeat("-", gaugeWidth-full), 100*share)
}
