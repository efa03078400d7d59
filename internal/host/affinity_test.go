package host_test

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"outpost.run/outpost/internal/host"
)

func TestMain(m *testing.M) {
	if os.Getenv("OUTPOST_TEST_PIN") != "" {
		pinAndTell()
		return
	}
	os.Exit(m.Run())
}

// pinAndTell pins this process and prints how many processors its threads, a child, and a child started freely have.
func pinAndTell() {
	const others = 8
	block := make(chan struct{})
	for range others { // threads that are there already
		go func() {
			runtime.LockOSThread()
			<-block
		}()
	}
	p, err := host.Pin()
	if err != nil {
		panic(err)
	}
	child := func() error {
		out, err := exec.Command("grep", "Cpus_allowed_list", "/proc/self/status").Output()
		fmt.Print(strings.Join(strings.Fields(string(out)), " "), "\n")
		return err
	}
	threads, _ := os.ReadDir("/proc/self/task")
	for _, t := range threads {
		var set unix.CPUSet
		var tid int
		if _, err := fmt.Sscan(t.Name(), &tid); err != nil {
			panic(err)
		}
		if err := unix.SchedGetaffinity(tid, &set); err != nil || set.Count() != 1 || !set.IsSet(p.CPU) {
			fmt.Println("thread", tid, "is not pinned", err)
		}
	}
	for _, how := range []func(func() error) error{func(f func() error) error { return f() }, p.Freely, func(f func() error) error { return f() }} {
		if err := how(child); err != nil {
			panic(err)
		}
	}
	fmt.Println(p.CPU)
}

func TestAPinnedProcessStartsOthersFreely(t *testing.T) {
	if runtime.NumCPU() < 2 {
		t.Skip("there is one processor")
	}
	all, err := exec.Command("grep", "Cpus_allowed_list", "/proc/self/status").Output()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "OUTPOST_TEST_PIN=1")
	out, err := cmd.CombinedOutput()
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	if err != nil || len(lines) != 4 {
		t.Fatalf("%v\n%s", err, out)
	}
	one, free := "Cpus_allowed_list: "+lines[3], strings.Join(strings.Fields(string(all)), " ")
	if lines[0] != one || lines[1] != free || lines[2] != one {
		t.Errorf("children may use %q, want %q, %q, %q", lines[:3], one, free, one)
	}
}

func TestProcessorTimeOfAProcess(t *testing.T) {
	first, err := host.ProcessCPU(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	for began := time.Now(); time.Since(began) < time.Millisecond; { // of use
	}
	later, err := host.ProcessCPU(os.Getpid())
	if err != nil || later <= first {
		t.Errorf("%v, then %v (%v)", first, later, err)
	}
	if _, err := host.ProcessCPU(1<<22 + 1); err == nil {
		t.Error("a process that is not there has a processor time")
	}
}
