package image

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"outpost.run/outpost/sandbox"
)

// apt is the host's apt with state of its own: its lists, cache and idea of what is installed lie below dir, and it
// reads nothing of the host's but the mirror, how to reach it (Acquire::…, auth.conf) and Debian's keyring. It installs
// nothing. One apt is used by one build at a time.
type apt struct {
	suite string
	dir   string
}

// debFile is one package as the signed lists describe it.
type debFile struct {
	uri    string
	file   string // its name in the cache
	size   int64
	sha256 string
}

// listsFreshFor is how long fetched package lists are used before they are fetched again.
const listsFreshFor = time.Hour

// debianKeyring is the keyring of the package debian-archive-keyring; "" where it is not installed.
func debianKeyring() string {
	for _, ext := range []string{"gpg", "pgp"} {
		name := "/usr/share/keyrings/debian-archive-keyring." + ext
		if _, err := os.Stat(name); err == nil {
			return name
		}
	}
	return ""
}

// noApt says that images can't be made here, and what to write into the configuration instead.
func noApt(why string) error {
	return sandbox.Errorf(sandbox.NotSupported, nil, "images can't be built on this host: %s; either mend that, "+
		"or name ready images in the configuration:\nimages:\n  bash: \"REPO/NAME:TAG\"\n  python: \"REPO/NAME:TAG\"", why)
}

// openApt prepares private state for suite below dir. Error: NotSupported where this host can't do it, with what mends it.
func openApt(ctx context.Context, suite, dir string) (*apt, error) {
	for _, tool := range []string{"apt-get", "apt-config"} {
		if _, err := exec.LookPath(tool); err != nil {
			return nil, noApt("it has no " + tool)
		}
	}
	keyring := debianKeyring()
	if keyring == "" {
		return nil, noApt("the package debian-archive-keyring is not installed")
	}
	m := hostMirrors("/etc/apt")
	if m.main == "" || m.security == "" {
		return nil, noApt("its apt sources name no Debian archive with a security archive (/etc/apt/sources.list.d)")
	}
	a := &apt{suite: suite, dir: dir}
	for _, d := range []string{"state/lists/partial", "cache/archives/partial", "sources"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o700); err != nil {
			return nil, err
		}
	}
	acquire, err := hostAcquire(ctx)
	if err != nil {
		return nil, err
	}
	sources := fmt.Sprintf("Types: deb\nURIs: %s\nSuites: %s %s-updates\nComponents: main\nSigned-By: %s\n\n"+
		"Types: deb\nURIs: %s\nSuites: %s-security\nComponents: main\nSigned-By: %s\n",
		m.main, suite, suite, keyring, m.security, suite, keyring)
	conf := acquire + fmt.Sprintf(`Dir::State "%[1]s/state";
Dir::State::status "%[1]s/status";
Dir::Cache "%[1]s/cache";
Dir::Etc::sourcelist "/dev/null";
Dir::Etc::sourceparts "%[1]s/sources";
Dir::Etc::main "/dev/null";
Dir::Etc::parts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
APT::Sandbox::User "root";
APT::Install-Recommends "false";
APT::Install-Suggests "false";
Acquire::Languages "none";
Acquire::ForceHash "SHA256";
`, dir)
	return a, errors.Join(
		os.WriteFile(filepath.Join(dir, "sources", "debian.sources"), []byte(sources), 0o600),
		os.WriteFile(filepath.Join(dir, "apt.conf"), []byte(conf), 0o600))
}

// hostAcquire is how the host's own apt reaches its mirrors: proxies, certificates, time limits.
func hostAcquire(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "apt-config", "dump").Output()
	if err != nil {
		return "", sandbox.Errorf(sandbox.Internal, err, "the host's apt configuration can't be read")
	}
	var b strings.Builder
	for line := range strings.Lines(string(out)) {
		for _, p := range []string{"Acquire::http", "Acquire::https", "Acquire::Retries", "Acquire::Check-"} {
			if strings.HasPrefix(line, p) {
				b.WriteString(line)
			}
		}
	}
	return b.String(), nil
}

// update fetches and checks the signed package lists, unless those here are fresh.
func (a *apt) update(ctx context.Context) error {
	stamp := filepath.Join(a.dir, "state", "updated")
	conf := filepath.Join(a.dir, "sources", "debian.sources")
	key, err := os.ReadFile(conf)
	if err != nil {
		return err
	}
	if info, err := os.Stat(stamp); err == nil && time.Since(info.ModTime()) < listsFreshFor {
		if b, _ := os.ReadFile(stamp); bytes.Equal(b, key) {
			return nil
		}
	}
	if _, err := a.get(ctx, nil, "update", "--error-on=any"); err != nil {
		return err
	}
	return os.WriteFile(stamp, key, 0o600)
}

// resolve tells which packages must be added for names, in an order in which they can be unpacked, when installed (text
// in the form of /var/lib/dpkg/status) is there already.
func (a *apt) resolve(ctx context.Context, installed []byte, names []string) ([]debFile, error) {
	if err := os.WriteFile(filepath.Join(a.dir, "status"), installed, 0o600); err != nil {
		return nil, err
	}
	// An empty cache: what lies in the real one would be left out of the answer.
	empty := filepath.Join(a.dir, "empty")
	if err := os.MkdirAll(filepath.Join(empty, "partial"), 0o700); err != nil {
		return nil, err
	}
	out, err := a.get(ctx, nil, append([]string{"-o", "Dir::Cache::archives=" + empty, "install", "--print-uris", "--no-remove", "--"}, names...)...)
	if err != nil {
		return nil, err
	}
	var debs []debFile
	for line := range strings.Lines(string(out)) {
		if !strings.HasPrefix(line, "'") {
			continue
		}
		f := strings.Fields(line)
		if len(f) != 4 || !strings.HasPrefix(f[3], "SHA256:") {
			return nil, fmt.Errorf("apt-get answered %q, not 'uri' file size SHA256:…", strings.TrimSpace(line))
		}
		size, err := strconv.ParseInt(f[2], 10, 64)
		if err != nil {
			return nil, err
		}
		debs = append(debs, debFile{strings.Trim(f[0], "'"), f[1], size, strings.TrimPrefix(f[3], "SHA256:")})
	}
	return debs, nil
}

// download fetches what resolve told into the cache; apt checks each file against the signed lists. percent is called
// while it runs.
func (a *apt) download(ctx context.Context, names []string, percent func(int64)) error {
	_, err := a.get(ctx, percent, append([]string{"install", "--download-only", "--no-remove", "--yes", "--"}, names...)...)
	return err
}

func (a *apt) path(d debFile) string { return filepath.Join(a.dir, "cache", "archives", d.file) }

// get runs apt-get. Errors: ImageNotFound for a package that is not there, Internal for the rest, both with apt's last
// line.
func (a *apt) get(ctx context.Context, percent func(int64), args ...string) ([]byte, error) {
	args = append([]string{"-qq"}, args...)
	if percent != nil {
		args = append([]string{"-o", "APT::Status-Fd=3"}, args...)
	}
	cmd := exec.CommandContext(ctx, "apt-get", args...)
	cmd.Env = []string{"APT_CONFIG=" + filepath.Join(a.dir, "apt.conf"), "LC_ALL=C", "PATH=" + os.Getenv("PATH"), "DEBIAN_FRONTEND=noninteractive"}
	for _, name := range []string{"http_proxy", "https_proxy", "no_proxy"} {
		if v, ok := os.LookupEnv(name); ok {
			cmd.Env = append(cmd.Env, name+"="+v)
		}
	}
	cmd.WaitDelay = time.Second
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if percent != nil {
		r, w, err := os.Pipe()
		if err != nil {
			return nil, err
		}
		defer r.Close()
		cmd.ExtraFiles = []*os.File{w}
		go followStatus(r, percent)
		defer w.Close()
	}
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		last := lastError(errs.String())
		code := sandbox.Internal
		if strings.Contains(last, "Unable to locate package") || strings.Contains(last, "has no installation candidate") {
			code = sandbox.ImageNotFound
		}
		return nil, sandbox.Errorf(code, err, "apt: %s", last)
	}
	return out.Bytes(), nil
}

// followStatus reads apt's dlstatus:N:PERCENT:TEXT lines. Source: apt's README.progress-reporting.
func followStatus(r io.Reader, percent func(int64)) {
	sc := bufio.NewScanner(r)
	for sc.Scan() {
		f := strings.SplitN(sc.Text(), ":", 4)
		if len(f) < 3 || f[0] != "dlstatus" {
			continue
		}
		if p, err := strconv.ParseFloat(f[2], 64); err == nil {
			percent(int64(p))
		}
	}
}

// lastError is apt's last E: line, without the credentials of a mirror's address.
func lastError(stderr string) string {
	last := "failed without a word"
	for line := range strings.Lines(stderr) {
		line = strings.TrimSpace(line)
		if s, ok := strings.CutPrefix(line, "E: "); ok {
			last = s
		}
	}
	words := strings.Fields(last)
	for i, w := range words {
		if u, err := url.Parse(w); err == nil && u.User != nil {
			words[i] = u.Redacted()
		}
	}
	return strings.Join(words, " ")
}
