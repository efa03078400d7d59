package e2e_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// readme gives the lines of code of one section of the README.
func readme(t *testing.T, section string) (lines []string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(text), "\n## "+section+"\n")
	if !found {
		t.Fatalf("README.md has no section %q", section)
	}
	rest, _, _ = strings.Cut(rest, "\n## ")
	for line := range strings.Lines(rest) {
		if code, is := strings.CutPrefix(line, "    "); is {
			lines = append(lines, strings.TrimRight(code, "\n"))
		}
	}
	return lines
}

// TestTheReadmesCommandsWork runs what the README shows as it stands there, but for where the server is, and what builds and starts it.
func TestTheReadmesCommandsWork(t *testing.T) {
	s := newServer(t)
	leakCheck(t, s)
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("the README's calls are made by curl, which is not here")
	}
	for section, want := range map[string][]string{
		"Use it":           {"container engine: usable", "\n42\n", `"memory_mb":256`, `"stdout":"42\n"`, `uid=`},
		"The command line": {"\n42\n", "\n3\n", `"mode": "stateful"`},
	} {
		t.Run(section, func(t *testing.T) {
			script := strings.Join(readme(t, section), "\n")
			for _, r := range [][2]string{
				{"make build\n", ""}, {"bin/outpost serve &", "true"}, {"bin/outpost", "outpost"},
				{"$(cat /var/lib/outpost/admin.token)", adminToken}, {"http://127.0.0.1:8080", s.Address()},
				// Its reader copies the id out of the answer before.
				{"/sandbox/sb_…/", "/sandbox/$(outpost ls -q | head -n 1)/"},
			} {
				script = strings.ReplaceAll(script, r[0], r[1])
			}
			scrapes, _, _ := strings.Cut(script, "scrape_configs:") // that is Prometheus's
			cmd := exec.Command("bash", "-euo", "pipefail", "-c", scrapes)
			cmd.Env = append(s.outpostCommand().Env, "PATH="+filepath.Dir(binary)+":"+os.Getenv("PATH"))
			e := finish(t, cmd)
			for _, w := range want {
				if !strings.Contains("\n"+e.stdout, w) {
					t.Errorf("it does not show %q", w)
				}
			}
			if e.code != 0 || t.Failed() {
				t.Errorf("exit %d of\n%s\n%s%s", e.code, scrapes, e.stdout, e.stderr)
			}
		})
	}
}
