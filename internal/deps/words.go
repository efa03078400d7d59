package deps

import (
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"
)

// What of an installer's words is shown.
const (
	saidLines = 15
	saidBytes = 2000
)

var (
	escape = regexp.MustCompile("\x1b\\[[0-9;?]*[A-Za-z]")
	inside = regexp.MustCompile(`(?:sparse\+)?http://127\.0\.0\.1(?::80)?/[^\s'"<>)\x60]*|/link/[^\s'"<>)\x60]*`)
)

// LastLines are an installer's last words, without colours, control characters and the proxy's addresses.
func LastLines(output string) string {
	output = escape.ReplaceAllString(strings.ToValidUTF8(output, "?"), "")
	output = inside.ReplaceAllString(output, "(index)")
	var lines []string
	for line := range strings.Lines(output) {
		line = strings.TrimRightFunc(strings.Map(printable, line[strings.LastIndexByte(strings.TrimRight(line, "\r\n"), '\r')+1:]), unicode.IsSpace)
		if line != "" {
			lines = append(lines, line)
		}
	}
	text := strings.Join(lines[max(0, len(lines)-saidLines):], "\n")
	if over := len(text) - saidBytes; over > 0 {
		for !utf8.RuneStart(text[over]) {
			over++
		}
		text = text[over:]
	}
	if text == "" {
		return "the installer ended without a word"
	}
	return text
}

func printable(c rune) rune {
	if c == '\t' {
		return ' '
	}
	if c == '\n' || unicode.IsPrint(c) {
		return c
	}
	return -1
}

// tail keeps the end of what is written.
type tail struct{ kept []byte }

func (t *tail) Write(b []byte) (int, error) {
	const most = 16 << 10
	t.kept = append(t.kept, b...)
	if over := len(t.kept) - most; over > 0 {
		t.kept = append(t.kept[:0], t.kept[over:]...)
	}
	return len(b), nil
}
