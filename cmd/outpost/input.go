package main

import (
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"
)

// input is what the program gets as its standard input, nil for nothing. Unless -i says otherwise that is a pipe or a file which this
// command was given, and never a terminal: who sits there would not know that a program waits. A program that is only submitted gets a
// file alone: a pipe that a service leaves open would be waited for without end.
func (p *program) input(cmd *cobra.Command) io.Reader {
	in := cmd.InOrStdin()
	switch {
	case p.inputTaken:
		return nil
	case cmd.Flags().Changed("stdin"):
		if p.stdin {
			return in
		}
		return nil
	case redirected(in) && (p.live || isFile(in)):
		return in
	}
	return nil
}

func isFile(in io.Reader) bool {
	f, is := in.(*os.File)
	if !is {
		return false
	}
	st, err := f.Stat()
	return err == nil && st.Mode().IsRegular()
}

// redirected says whether somebody put something else in the place of a terminal. /dev/null is a device too.
func redirected(in io.Reader) bool {
	f, is := in.(*os.File)
	if !is {
		return true
	}
	st, err := f.Stat()
	return err == nil && st.Mode()&os.ModeCharDevice == 0
}

// What of standard input goes with the request: what is there at once. A longer one, or one that takes its time, follows while the
// program runs.
const (
	mostAtOnce = 256 << 10 // bytes
	atOnce     = 100 * time.Millisecond
)

// firstInput is all of in, or a reader of all of it where that is more than goes with the request.
func firstInput(in io.Reader) (all []byte, rest io.Reader, err error) {
	pieces := make(chan inputPiece)
	go func() {
		for {
			buf := make([]byte, 64<<10)
			n, err := in.Read(buf)
			pieces <- inputPiece{buf[:n], err}
			if err != nil {
				return
			}
		}
	}()
	for late := time.After(atOnce); ; {
		select {
		case p := <-pieces:
			all = append(all, p.bytes...)
			switch {
			case p.err == io.EOF:
				return all, nil, nil
			case p.err != nil:
				return nil, nil, p.err
			case len(all) > mostAtOnce:
				return nil, &input{first: all, more: pieces}, nil
			}
		case <-late:
			return nil, &input{first: all, more: pieces}, nil
		}
	}
}

// input is standard input of which the beginning was read.
type input struct {
	first []byte
	more  <-chan inputPiece
	err   error
}

type inputPiece struct {
	bytes []byte
	err   error
}

// Read implements io.Reader.
func (x *input) Read(b []byte) (int, error) {
	for len(x.first) == 0 {
		if x.err != nil {
			return 0, x.err
		}
		p := <-x.more
		x.first, x.err = p.bytes, p.err
	}
	n := copy(b, x.first)
	x.first = x.first[n:]
	return n, nil
}
