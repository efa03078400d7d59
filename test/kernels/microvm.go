package main

import (
	"context"
	"path/filepath"

	"outpost.run/outpost/internal/engine/microvm"
	"outpost.run/outpost/internal/guestos"
	"outpost.run/outpost/test/kernels/cache"
)

// The processor that --microvm emulates: it has AMD's virtualization, so that the guest has a KVM, which runs guests of its own.
const microVMProcessor = "EPYC,+svm,+npt"

// unreliable is why what failed with --microvm is run once more: QEMU (10.0, by software, two processors) ends one such guest in some thirty
// without a word, and one in ten of the guests in it by a triple fault. Each case runs on the host's own processor too, but for the monitor.
const unreliable = "an emulated processor with virtualization is not reliable: all is run once more, in a fresh guest, and that decides;"

// addMicroVM gives the guest what tests of microVMs need: a processor with KVM, Firecracker with its jailer, and the system that their own
// guests boot.
func (o *options) addMicroVM(ctx context.Context, c *cache.Cache) error {
	firecracker, jailer, err := c.Firecracker(ctx)
	if err != nil {
		return err
	}
	s, err := guestos.NewMaker(guestos.Options{Dir: filepath.Join(c.Dir, "guestos"), Init: microvm.Keeper}).Get(ctx)
	if err != nil {
		return err
	}
	const bin, system = "/usr/local/bin", testDir + "/guestos"
	made := filepath.Dir(s.Kernel)
	o.cpu, o.modules = microVMProcessor, append(o.modules, "kvm_amd")
	o.files = append(o.files, firecracker+":"+bin+"/firecracker", jailer+":"+bin+"/jailer", made+":"+system+"/"+filepath.Base(made))
	o.env = append(o.env, "OUTPOST_TEST_GUESTOS="+system, "OUTPOST_TEST_FIRECRACKER="+bin+"/firecracker", "OUTPOST_TEST_JAILER="+bin+"/jailer")
	return nil
}
