// Kernels runs static Go test binaries under other kernels than the host's: it boots Debian's cloud kernels in QEMU by
// software emulation, with cgroup v2, and reports each test. Kernels and QEMU are downloaded by the host's apt, unpacked
// in a cache (OUTPOST_TEST_CACHE, by default outpost-test in the user's cache folder) and never installed.
//
//	CGO_ENABLED=0 go test -c -o /tmp/x.test ./internal/x
//	go run ./test/kernels --kernel 6.1 --kernel 6.12 --test /tmp/x.test --file image.erofs:/var/test/images/a.erofs -- -test.run Limits
//
// The guest runs tests as root in /var/test, on ext4, where TMPDIR lies too; the other mounts are in test/kernels/init.
package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"outpost.run/outpost/test/kernels/cache"
	"outpost.run/outpost/test/kernels/plan"
)

type options struct {
	kernels, tests, files, tools, modules, env several
	memoryMB, cpus                             int
	timeout                                    time.Duration
	events, expect, image, cpu                 string
	microVM                                    bool
	args                                       []string
}

// several is a flag that may be given several times.
type several []string

func (l *several) String() string     { return strings.Join(*l, ",") }
func (l *several) Set(s string) error { *l = append(*l, s); return nil }

func main() {
	o := options{}
	flag.Var(&o.kernels, "kernel", "6.1 or 6.12; may be repeated (default both)")
	flag.Var(&o.tests, "test", "a static test binary, made by CGO_ENABLED=0 go test -c; may be repeated")
	flag.Var(&o.files, "file", "HOST:GUEST, a file or folder that the guest gets; may be repeated")
	flag.Var(&o.tools, "tool", "a program of the host that the guest gets with its libraries (mkfs.ext4 always); may be repeated")
	flag.Var(&o.modules, "module", "a kernel module to load beside the usual ones; may be repeated")
	flag.Var(&o.env, "env", "NAME=VALUE for the tests; may be repeated")
	flag.IntVar(&o.memoryMB, "memory", 2048, "the guest's memory in MiB")
	flag.StringVar(&o.cpu, "cpu", "max,la57=off", "the guest's processor, in QEMU's words")
	flag.BoolVar(&o.microVM, "microvm", false, "the guest has a KVM of its own, Firecracker, its jailer, and what their guests boot")
	flag.IntVar(&o.cpus, "cpus", 2, "the guest's CPUs")
	flag.DurationVar(&o.timeout, "timeout", 10*time.Minute, "limit for each kernel, boot included")
	flag.StringVar(&o.events, "json", "", "a file for the tests' events in the form of go test -json")
	flag.StringVar(&o.image, "image", "", "an image whose layers the guest gets, such as deb:trixie?include=python3; "+layersVariable+" names them there")
	flag.StringVar(&o.expect, "expect", "", "a file of events of go test -json on the host: its tests must end here in the same way")
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "usage: go run ./test/kernels [flags] --test BINARY [-- arguments of the tests]")
		flag.PrintDefaults()
	}
	flag.Parse()
	o.args = flag.Args()
	if len(o.tests) == 0 {
		flag.Usage()
		os.Exit(2)
	}
	if len(o.kernels) == 0 {
		o.kernels = several{"6.1", "6.12"}
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	ok, err := run(ctx, o, os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "kernels:", err)
	}
	if err != nil || !ok {
		os.Exit(1)
	}
}

// run runs the tests under each kernel; false says that a test failed.
func run(ctx context.Context, o options, out io.Writer) (bool, error) {
	var events io.Writer = io.Discard
	if o.events != "" {
		f, err := os.Create(o.events)
		if err != nil {
			return false, err
		}
		defer f.Close()
		events = f
	}
	c, err := cache.Open(out)
	if err != nil {
		return false, err
	}
	if o.microVM {
		if err := o.addMicroVM(ctx, c); err != nil {
			return false, err
		}
	}
	good := true
	for _, version := range o.kernels {
		ok, err := runKernel(ctx, c, version, o, out, events)
		if o.microVM && (!ok || err != nil) && ctx.Err() == nil { // see unreliable
			fmt.Fprintln(out, "kernels: "+unreliable, err)
			ok, err = runKernel(ctx, c, version, o, out, events)
		}
		if err != nil {
			return false, fmt.Errorf("kernel %s: %w", version, err)
		}
		good = good && ok
	}
	return good, nil
}

func runKernel(ctx context.Context, c *cache.Cache, version string, o options, out, events io.Writer) (bool, error) {
	qemu, err := c.QEMU(ctx)
	if err != nil {
		return false, err
	}
	k, err := c.Kernel(ctx, version)
	if err != nil {
		return false, err
	}
	mods, err := k.Closure(append(defaultModules, o.modules...))
	if err != nil {
		return false, err
	}
	dir, err := os.MkdirTemp(c.Dir, "run-*")
	if err != nil {
		return false, err
	}
	defer os.RemoveAll(dir)
	init, err := buildInit(ctx, dir, out)
	if err != nil {
		return false, err
	}
	initrd := filepath.Join(dir, "initramfs")
	if err := writeInitramfs(initrd, init, mods); err != nil {
		return false, err
	}
	p, files, err := o.plan()
	if err != nil {
		return false, err
	}
	if o.image != "" {
		more, variable, err := layers(ctx, o.image, out)
		if err != nil {
			return false, err
		}
		files, p.Env = append(files, more...), append(p.Env, variable)
	}
	disk, err := makeDisk(ctx, dir, p, files, append(o.tools, "mkfs.ext4"))
	if err != nil {
		return false, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, o.timeout, fmt.Errorf("limit %v", o.timeout))
	defer cancel()
	fmt.Fprintf(out, "kernels: booting Linux %s, %d CPUs, %d MiB, in software\n", k.Release, o.cpus, o.memoryMB)
	var collected bytes.Buffer
	r := &report{started: time.Now(), echo: out, events: io.MultiWriter(&collected, events)}
	g := guest{qemu: qemu, kernel: k, initrd: initrd, disk: disk, cpu: o.cpu, memoryMB: o.memoryMB, cpus: o.cpus, dir: dir}
	guestErr := g.run(ctx, r.line)
	r.close()
	if r.err != nil {
		return false, r.err
	}
	all, err := results(&collected)
	if err != nil {
		return false, err
	}
	failed := list(out, k.Release, all)
	if o.expect != "" {
		differences, err := o.differences(all)
		if err != nil {
			return false, err
		}
		r.failed = append(r.failed, differences...)
		if len(differences) == 0 {
			fmt.Fprintln(out, "kernels: the same tests as on the host, with the same ends")
		}
	}
	for _, f := range r.failed {
		fmt.Fprintln(out, "kernels:", f)
	}
	fmt.Fprintf(out, "kernels: the guest of Linux %s took %.1f s\n", k.Release, time.Since(r.started).Seconds())
	return failed == 0 && len(r.failed) == 0, guestErr
}

// differences compares the tests that ran with those of the host.
func (o options) differences(here []result) ([]string, error) {
	f, err := os.Open(o.expect)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	there, err := results(f)
	return compare(here, there), err
}

// plan says what the guest runs and which files that takes.
func (o options) plan() (plan.Plan, []file, error) {
	p := plan.Plan{Env: append([]string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LC_ALL=C.UTF-8",
		"TMPDIR=" + testDir + "/tmp",
	}, o.env...)}
	var files []file
	for _, t := range o.tests {
		name := strings.TrimSuffix(filepath.Base(t), ".test")
		to := testDir + "/bin/" + filepath.Base(t)
		files = append(files, file{t, to})
		p.Runs = append(p.Runs, plan.Run{Name: name, Argv: append([]string{to, "-test.v=test2json", "-test.timeout=" + (o.timeout * 9 / 10).String()}, o.args...), Dir: testDir})
	}
	for _, f := range o.files {
		from, to, ok := strings.Cut(f, ":")
		if !ok || !filepath.IsAbs(to) {
			return p, nil, fmt.Errorf("--file %s: want HOST:GUEST with an absolute path in the guest", f)
		}
		files = append(files, file{from, to})
	}
	return p, files, nil
}
