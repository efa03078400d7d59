package image

import (
	"os"
	"strconv"
	"strings"
)

// alternative is one choice that a package's script would have registered.
type alternative struct {
	link, name, path string
	priority         int
	slaves           [][3]string
}

// alternativesOf reads the update-alternatives --install calls of a postinst script. Only calls whose words are all
// plain text are taken; one that the shell would compute is left out.
func alternativesOf(postinst string) []alternative {
	var all []alternative
	for line := range strings.Lines(strings.ReplaceAll(postinst, "\\\n", " ")) {
		_, call, ok := strings.Cut(line, "update-alternatives")
		if !ok {
			continue
		}
		f := strings.Fields(call)
		var a alternative
		for i := 0; i < len(f); i++ {
			switch {
			case f[i] == "--install" && i+4 < len(f):
				a.link, a.name, a.path = f[i+1], f[i+2], f[i+3]
				a.priority, _ = strconv.Atoi(strings.TrimRight(f[i+4], ";"))
				i += 4
			case f[i] == "--slave" && i+3 < len(f):
				a.slaves = append(a.slaves, [3]string{f[i+1], f[i+2], strings.TrimRight(f[i+3], ";")})
				i += 3
			}
		}
		if a.link != "" && plainWords(a) {
			all = append(all, a)
		}
	}
	return all
}

func plainWords(a alternative) bool {
	words := []string{a.link, a.name, a.path}
	for _, s := range a.slaves {
		words = append(words, s[:]...)
	}
	return !strings.ContainsAny(strings.Join(words, ""), "$`\"'*;&|<>()")
}

// args are the words for update-alternatives; slaves whose file was dropped are left out. ok is false where the choice
// itself is not there.
func (a alternative) args(root *os.Root) (args []string, ok bool) {
	if !present(root, a.path) {
		return nil, false
	}
	args = []string{"/usr/bin/update-alternatives", "--quiet", "--log", "/dev/null", "--install", a.link, a.name, a.path, strconv.Itoa(a.priority)}
	for _, s := range a.slaves {
		if present(root, s[2]) {
			args = append(args, "--slave", s[0], s[1], s[2])
		}
	}
	return args, true
}

func present(root *os.Root, name string) bool {
	_, err := root.Lstat(strings.TrimPrefix(name, "/"))
	return err == nil
}
