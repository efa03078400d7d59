package image

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"outpost.run/outpost/sandbox"
)

const (
	bashRef   = "deb:trixie"
	pythonRef = "deb:trixie?include=python3"
	childEnv  = "OUTPOST_TEST_IMAGE_CHILD" // the store of a child that builds pythonRef and tells its phases
)

// store is one for the whole package: builds take seconds.
var store = sync.OnceValues(func() (*Store, error) { return Open(storeDir) })
var storeDir string

func TestMain(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		os.Exit(child(dir))
	}
	var err error
	if storeDir, err = os.MkdirTemp("/var/tmp", "outpost-image-"); err != nil { // /tmp may be in memory
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	if err := os.RemoveAll(storeDir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func child(dir string) int {
	s, err := Open(dir)
	if err == nil {
		_, err = s.Ensure(context.Background(), pythonRef, func(p Progress) { fmt.Println(p.Phase) })
	}
	fmt.Println("end", err)
	return 0
}

// built gives the image of ref from the shared store, or skips where this host can't build any.
func built(t *testing.T, ref string) (*Store, Image) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("building images needs root")
	}
	s, err := store()
	if err != nil {
		t.Fatal(err)
	}
	img, err := s.Ensure(t.Context(), ref, nil)
	if sandbox.CodeOf(err) == sandbox.NotSupported {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return s, img
}

// inImage runs a shell script as root in the image, writable, in namespaces of its own.
func inImage(t *testing.T, img Image, script string) (string, error) {
	t.Helper()
	dir, err := os.MkdirTemp("", "view-") // t.TempDir's names hold commas, which part mount options
	if err != nil {
		t.Fatal(err)
	}
	defer os.Remove(dir)
	var out bytes.Buffer
	err = inWorkshop(func(w *workshop) error {
		if err := w.mount("tmpfs", dir, "tmpfs", 0, ""); err != nil {
			return err
		}
		var lowers []string
		for i, layer := range img.Layers {
			at := filepath.Join(dir, fmt.Sprint("layer", i))
			if err := errors.Join(os.Mkdir(at, 0o700), w.mountLayer(layer, at)); err != nil {
				return err
			}
			lowers = append([]string{at}, lowers...)
		}
		view, upper, work := filepath.Join(dir, "view"), filepath.Join(dir, "upper"), filepath.Join(dir, "work")
		if err := errors.Join(os.Mkdir(view, 0o755), os.Mkdir(upper, 0o755), os.Mkdir(work, 0o755)); err != nil {
			return err
		}
		if err := w.mount("overlay", view, "overlay", 0, "lowerdir="+strings.Join(lowers, ":")+",upperdir="+upper+",workdir="+work); err != nil {
			return err
		}
		if err := w.mountDev(view); err != nil {
			return err
		}
		if err := w.mount("proc", filepath.Join(view, "proc"), "proc", 0, ""); err != nil {
			return err
		}
		err := w.run(t.Context(), view, "/bin/sh", "-c", "exec >/var/tmp/out 2>&1; "+script)
		b, readErr := os.ReadFile(filepath.Join(upper, "var/tmp/out"))
		out.Write(b)
		return errors.Join(err, readErr)
	})
	return out.String(), err
}

func TestImageCarries(t *testing.T) {
	_, img := built(t, pythonRef)
	for _, tc := range []struct{ name, script, want string }{
		{"merged /usr", `readlink /bin /sbin /lib /lib64 | tr '\n' ' '`, "usr/bin usr/sbin usr/lib usr/lib64"},
		{"the sandbox user", `id sandbox; getent passwd sandbox`, "uid=1000(sandbox) gid=1000(sandbox) groups=1000(sandbox)\nsandbox:x:1000:1000:sandbox:/home/sandbox:/bin/bash"},
		{"nobody is 65534", `id -u nobody`, "65534"},
		{"shadow is not for all", `stat -c %a:%U:%G /etc/shadow /etc/gshadow`, "640:root:shadow\n640:root:shadow"},
		{"who owns what", `stat -c '%n %a %u:%g' /workspace /home/sandbox /home/sandbox/.bashrc /root /tmp /var/tmp /`,
			"/workspace 755 1000:1000\n/home/sandbox 755 1000:1000\n/home/sandbox/.bashrc 644 1000:1000\n/root 700 0:0\n/tmp 1777 0:0\n/var/tmp 1777 0:0\n/ 755 0:0"},
		{"mount points", `ls -d /proc /sys /dev /dev/ /run /data /mnt /srv | tr '\n' ' '`, "/data /dev /dev/ /mnt /proc /run /srv /sys"},
		{"empty identity", `stat -c %s /etc/machine-id /etc/resolv.conf; cat /etc/hostname; grep -c localhost /etc/hosts`, "0\n0\nsandbox\n2"},
		{"UTC", `readlink -f /etc/localtime; date +%Z`, "/usr/share/zoneinfo/Etc/UTC\nUTC"},
		{"no set-id files", `find / -xdev -perm /6000 | wc -l`, "0"},
		{"no host ids", `find / -xdev \( -nouser -o -nogroup \) | wc -l`, "0"},
		{"copyright stays, bulk goes", `test -s /usr/share/doc/bash/copyright && find /usr/share/man /usr/share/locale -type f | wc -l`, "0"},
		{"awk", `awk 'BEGIN{print 6*7}'; readlink /etc/alternatives/awk`, "42\n/usr/bin/mawk"},
		{"alternatives are registered", `update-alternatives --query awk | grep ^Value`, "Value: /usr/bin/mawk"},
		{"loader cache", `/sbin/ldconfig -p | grep -c 'libc\.so\.6 '`, "1"},
		{"loader cache of the top layer", `/sbin/ldconfig -p | grep -c libreadline`, "1"},
		{"curl", `curl --version | head -c 5`, "curl"},
		{"git", `cd /tmp && git init -q r && cd r && git -c user.name=a -c user.email=b commit -q --allow-empty -m x && git log --oneline | wc -l`, "1"},
		{"ps", `ps -o comm= 1 | wc -l`, "1"},
		{"tar, gzip, find, grep, sed", `cd /tmp && tar czf a.tgz /etc/hosts 2>/dev/null && tar tzf a.tgz | sed s/hosts/x/ | grep x && find a.tgz`, "etc/x\na.tgz"},
		{"bash is the user's shell", `bash -c 'echo ${BASH_VERSINFO[0]}'`, "5"},
		{"certificates", `grep -c BEGIN /etc/ssl/certs/ca-certificates.crt | awk '{print ($1>100)}'; find -L /etc/ssl/certs -type l | wc -l`, "1\n0"},
		{"dpkg knows all", `dpkg --audit; dpkg -s python3 bash | grep -c '^Status: install ok installed'`, "2"},
		{"dpkg's sums hold", `dpkg -V | grep -v -e /usr/share -e ' c /etc'`, ""},
		{"apt is content", `apt-get check -qq 2>&1`, ""},
		{"python", `python -c 'import sys; print(sys.executable, sys.version_info[0])'`, "/usr/bin/python 3"},
		{"python's modules", `python3 -c 'import ssl,sqlite3,ctypes,hashlib,lzma,bz2,zlib,uuid,asyncio,curses,readline,decimal,venv,zoneinfo
print(len(ssl.create_default_context().get_ca_certs())>100, zoneinfo.ZoneInfo("Europe/Berlin"))'`, "True Europe/Berlin"},
		{"bytecode is used", `python3 -v -c 'import asyncio' 2>&1 | grep -c 'wrote'`, "0"},
		{"bytecode is there for all", `find /usr/lib/python3.1* -name '*.pyc' | wc -l | awk '{print ($1>500)}'`, "1"},
		{"nothing of the making", `ls -A /tmp /run/lock /var/log/*.log /var/cache/ldconfig 2>/dev/null | grep -v -e ^$ -e :`, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := inImage(t, img, tc.script+"; exit 0")
			if strings.TrimSpace(got) != tc.want || err != nil {
				t.Errorf("%s\n gave %q (%v)\n want %q", tc.script, got, err, tc.want)
			}
		})
	}
}

func TestLayersMountOnOldKernels(t *testing.T) {
	_, img := built(t, pythonRef)
	for _, layer := range img.Layers {
		f, err := os.Open(layer)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		sb := make([]byte, 128)
		if _, err := f.ReadAt(sb, 1024); err != nil {
			t.Fatal(err)
		}
		if incompat := binary.LittleEndian.Uint32(sb[80:]); incompat != 0 {
			t.Errorf("layer needs features %#x; 0 is what every kernel mounts", incompat)
		}
	}
}

func TestLayerThroughLoopDevice(t *testing.T) {
	_, img := built(t, pythonRef)
	top := img.Layers[len(img.Layers)-1]
	dir := t.TempDir()
	err := inWorkshop(func(w *workshop) error {
		if err := w.mount("tmpfs", dir, "tmpfs", 0, ""); err != nil { // where the kernel refuses file-backed mounts
			return err
		}
		b, err := os.ReadFile(top)
		if err != nil {
			return err
		}
		file, at := filepath.Join(dir, "layer"), filepath.Join(dir, "at")
		if err := errors.Join(os.WriteFile(file, b, 0o400), os.Mkdir(at, 0o700), w.mountLayer(file, at)); err != nil {
			return err
		}
		_, err = os.Stat(filepath.Join(at, "usr/bin/python3"))
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

func TestEqualInputsGiveEqualDigests(t *testing.T) {
	s, img := built(t, pythonRef)
	other, err := Open(filepath.Join(t.TempDir(), "a:store,elsewhere"))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	again, err := other.Ensure(t.Context(), pythonRef, nil)
	if err != nil {
		t.Fatal(err)
	}
	if again.Digest != img.Digest {
		t.Errorf("two builds differ: %s, %s", img.Digest, again.Digest)
	}
	bash, err := s.Ensure(t.Context(), bashRef, nil)
	if err != nil || bash.Layers[0] != img.Layers[0] || len(bash.Layers) != 1 {
		t.Errorf("bash has layers %v (%v); want the base of python alone: %v", bash.Layers, err, img.Layers)
	}
}

func TestKilledBuildLeavesNothingHalf(t *testing.T) {
	s, _ := built(t, bashRef)
	for _, phase := range []string{"resolve", "download", "unpack", "configure", "write"} {
		t.Run(phase, func(t *testing.T) {
			if err := s.Remove(pythonRef); err != nil {
				t.Fatal(err)
			}
			killAt(t, phase)
			after, err := Open(storeDir)
			if err != nil {
				t.Fatal(err)
			}
			defer after.Close()
			left, err := os.ReadDir(filepath.Join(storeDir, "tmp"))
			if err != nil || len(left) > 0 {
				t.Errorf("left in tmp: %v (%v)", left, err)
			}
			if img, ok := after.Get(pythonRef); ok {
				if _, err := inImage(t, img, "python3 -c pass"); err != nil {
					t.Errorf("the image that counts as ready is not: %v", err)
				}
			}
			if _, ok := after.Get(bashRef); !ok {
				t.Error("the image that was ready is gone")
			}
		})
	}
	if _, err := s.Ensure(t.Context(), pythonRef, nil); err != nil {
		t.Errorf("after all that: %v", err)
	}
}

// killAt starts a process that builds pythonRef and kills it when it tells that phase.
func killAt(t *testing.T, phase string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+storeDir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	buf, seen := make([]byte, 4096), ""
	for !strings.Contains(seen, phase) && !strings.Contains(seen, "end") {
		n, err := out.Read(buf)
		seen += string(buf[:n])
		if err != nil {
			break
		}
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	if !strings.Contains(seen, phase) {
		t.Fatalf("the build never came to %s: %s", phase, seen)
	}
}

func TestCallersShareOneBuild(t *testing.T) {
	s, _ := built(t, bashRef)
	const ref = "deb:trixie?include=jq"
	short, cancel := context.WithCancel(t.Context())
	gone := make(chan error, 1)
	started := make(chan struct{})
	var once sync.Once
	go func() {
		_, err := s.Ensure(short, ref, func(Progress) { once.Do(func() { close(started) }) })
		gone <- err
	}()
	<-started
	cancel()
	if err := <-gone; !errors.Is(err, context.Canceled) {
		t.Errorf("a caller that left got %v", err)
	}
	if _, ok := s.Building(ref); !ok {
		t.Error("the build ended with its first caller")
	}
	digests := make(chan string, 8)
	for range 8 {
		go func() {
			img, err := s.Ensure(t.Context(), ref, nil)
			digests <- img.Digest + fmt.Sprint(err)
		}()
	}
	first := <-digests
	for range 7 {
		if d := <-digests; d != first || !strings.HasSuffix(d, "<nil>") {
			t.Errorf("callers got %q and %q", first, d)
		}
	}
	if _, ok := s.Building(ref); ok {
		t.Error("still building after all have the image")
	}
}

func TestUnknownPackage(t *testing.T) {
	s, _ := built(t, bashRef)
	_, err := s.Ensure(t.Context(), "deb:trixie?include=no-such-package-here", nil)
	if sandbox.CodeOf(err) != sandbox.ImageNotFound || !strings.Contains(err.Error(), "no-such-package-here") {
		t.Errorf("got %v", err)
	}
}

func TestReadyImageNeedsNoApt(t *testing.T) {
	s, img := built(t, bashRef)
	t.Setenv("PATH", "")
	if again, err := s.Ensure(t.Context(), bashRef, nil); err != nil || again.Digest != img.Digest {
		t.Errorf("ready image: %v, %v", again, err)
	}
	fresh, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer fresh.Close()
	_, err = fresh.Ensure(t.Context(), bashRef, nil)
	if sandbox.CodeOf(err) != sandbox.NotSupported || !strings.Contains(err.Error(), "images:\n") {
		t.Errorf("without apt: %v; want the configuration lines that mend it", err)
	}
}

func TestCloseEndsBuild(t *testing.T) {
	if _, img := built(t, bashRef); img.Digest == "" {
		t.Fatal("no image")
	}
	dir := t.TempDir()
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	result := make(chan error, 1)
	started := make(chan struct{})
	var once sync.Once
	go func() {
		_, err := s.Ensure(t.Context(), bashRef, func(p Progress) {
			if p.Phase == "unpack" {
				once.Do(func() { close(started) })
			}
		})
		result <- err
	}()
	<-started
	s.Close()
	if err := <-result; sandbox.CodeOf(err) != sandbox.ShuttingDown {
		t.Errorf("the waiter got %v", err)
	}
	if left, _ := os.ReadDir(filepath.Join(dir, "tmp")); len(left) > 0 {
		t.Errorf("left in tmp: %v", left)
	}
}

func TestPruneTakesTheLongestUnused(t *testing.T) {
	s, _ := built(t, bashRef)
	built(t, pythonRef)
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(s.refPath(pythonRef), old, old); err != nil {
		t.Fatal(err)
	}
	removed, err := s.Prune(0, Spare{Ref: func(ref string) bool { return ref != pythonRef }})
	if err != nil || len(removed) != 1 || removed[0] != pythonRef {
		t.Errorf("Prune = %v, %v; want python alone", removed, err)
	}
	img, ok := s.Get(bashRef)
	if !ok {
		t.Fatal("the base went with python's layer")
	}
	var st unix.Stat_t
	if err := unix.Stat(img.Layers[0], &st); err != nil || st.Mode&0o222 != 0 {
		t.Errorf("base layer: mode %o, %v; want it read-only", st.Mode, err)
	}
}
