package cache

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// keyring is where Debian's archive keys lie on Debian and its children (package debian-archive-keyring).
const keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"

// suite is one Debian suite, read through the host's apt with state of its own: nothing is installed on the host and
// its own lists stay as they are.
type suite struct {
	name string // bookworm, trixie
	dir  string // holds the private state; may be removed afterwards
	log  io.Writer
}

// openSuite fetches the signed lists of a suite from the mirror that the host's own sources name.
func openSuite(ctx context.Context, name, dir string, log io.Writer) (*suite, error) {
	if _, err := os.Stat(keyring); err != nil {
		return nil, fmt.Errorf("the archive keys of Debian are missing (%w): install debian-archive-keyring", err)
	}
	mirror, err := hostMirror(ctx)
	if err != nil {
		return nil, err
	}
	for _, d := range []string{"state/lists/partial", "cache/archives/partial"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return nil, err
		}
	}
	conf := fmt.Sprintf(`Dir::State %q;
Dir::State::status %q;
Dir::Cache %q;
Dir::Etc::sourcelist %q;
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
APT::Sandbox::User "root";
APT::Install-Recommends "false";
Acquire::Languages "none";
`, dir+"/state", dir+"/status", dir+"/cache", dir+"/suite.sources")
	sources := fmt.Sprintf("Types: deb\nURIs: %s\nSuites: %s\nComponents: main\nSigned-By: %s\n", mirror, name, keyring)
	for file, text := range map[string]string{"apt.conf": conf, "suite.sources": sources, "status": ""} {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o644); err != nil {
			return nil, err
		}
	}
	s := &suite{name: name, dir: dir, log: log}
	fmt.Fprintf(log, "kernels: reading Debian %s's lists\n", name)
	_, err = s.run(ctx, dir, "apt-get", "update", "-q")
	return s, err
}

// run calls one of apt's programs on the private state and answers its stdout.
func (s *suite) run(ctx context.Context, dir, program string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "APT_CONFIG="+filepath.Join(s.dir, "apt.conf"), "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s for Debian %s: %w\n%s", program, strings.Join(args, " "), s.name, err, stderr.String())
	}
	return string(out), nil
}

// dependency names the first dependency of a package whose name starts with prefix: how a metapackage is followed.
func (s *suite) dependency(ctx context.Context, pkg, prefix string) (string, error) {
	out, err := s.run(ctx, s.dir, "apt-cache", "depends", "--no-recommends", "--no-suggests", pkg)
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(out) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "Depends: "); ok && strings.HasPrefix(name, prefix) {
			return name, nil
		}
	}
	return "", fmt.Errorf("package %s of Debian %s depends on no %s…", pkg, s.name, prefix)
}

// unpack downloads one package, or with deps all that it needs too, and unpacks the files below root. No script of a
// package is run.
func (s *suite) unpack(ctx context.Context, root, pkg string, deps bool) error {
	archives := filepath.Join(s.dir, "cache", "archives")
	fmt.Fprintf(s.log, "kernels: downloading %s from Debian %s\n", pkg, s.name)
	args := []string{"download", "-q", pkg}
	if deps {
		args = []string{"install", "-q", "-y", "--download-only", pkg}
	}
	if _, err := s.run(ctx, archives, "apt-get", args...); err != nil {
		return err
	}
	debs, err := filepath.Glob(filepath.Join(archives, "*.deb"))
	if err != nil || len(debs) == 0 {
		return fmt.Errorf("apt downloaded nothing for %s (%v)", pkg, err)
	}
	for _, deb := range debs {
		if _, err := s.run(ctx, s.dir, "dpkg-deb", "-x", deb, root); err != nil {
			return err
		}
		if err := os.Remove(deb); err != nil {
			return err
		}
	}
	return nil
}

// hostMirror is the Debian archive that the host's apt is configured to use.
func hostMirror(ctx context.Context) (string, error) {
	if m := os.Getenv("OUTPOST_TEST_MIRROR"); m != "" {
		return m, nil
	}
	out, err := exec.CommandContext(ctx, "apt-get", "indextargets", "--format", "$(REPO_URI)").Output()
	if err != nil {
		return "", fmt.Errorf("asking apt for the host's package sources: %w", err)
	}
	for line := range strings.Lines(string(out)) {
		if m := strings.TrimSpace(line); strings.HasSuffix(strings.TrimSuffix(m, "/"), "/debian") {
			return m, nil
		}
	}
	return "", fmt.Errorf("the host's apt sources name no Debian archive: set OUTPOST_TEST_MIRROR to the URI of one")
}
