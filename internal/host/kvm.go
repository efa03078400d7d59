package host

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Requests of /dev/kvm. Source: include/uapi/linux/kvm.h.
const (
	kvmGetAPIVersion       = 0xae00
	kvmCreateVM            = 0xae01
	kvmGetSupportedCPUID   = 0xc008ae05
	kvmSetCPUID2           = 0x4008ae90
	kvmGetVCPUMmapSize     = 0xae04
	kvmCreateVCPU          = 0xae41
	kvmSetUserMemoryRegion = 0x4020ae46
	kvmRun                 = 0xae80
	kvmGetSregs            = 0x8138ae83
	kvmSetSregs            = 0x4138ae84
	kvmSetRegs             = 0x4090ae82

	kvmExitIO = 2
)

// The guest's memory, and where its page tables are.
const (
	kvmMemory = 64 << 10
	kvmTables = 0x1000
)

// kvmTime is how long the smallest guest may take.
const kvmTime = 2 * time.Second

// TryKVM runs a guest of two instructions, the first of which the kernel does not know how to emulate: some hosts have a /dev/kvm that runs
// nothing else. Source: arch/x86/kvm/emulate.c.
func TryKVM() error {
	kvm, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer kvm.Close()
	if v, err := kvmCall(kvm.Fd(), kvmGetAPIVersion, 0); err != nil || v != 12 {
		return fmt.Errorf("/dev/kvm has API version %d (%v), want 12", v, err)
	}
	vm, err := kvmCall(kvm.Fd(), kvmCreateVM, 0)
	if err != nil {
		return fmt.Errorf("KVM_CREATE_VM: %w", err)
	}
	defer unix.Close(vm)
	memory, err := unix.Mmap(-1, 0, kvmMemory, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_ANONYMOUS)
	if err != nil {
		return err
	}
	copy(memory, []byte{0xf3, 0x0f, 0xb8, 0xc1, 0xe6, 0x10, 0xf4}) // popcnt %ecx, %eax; out %al, $16; hlt
	const present, large = 3, 0x83                                 // and writable; a page of 2 MiB
	binary.LittleEndian.PutUint64(memory[kvmTables:], kvmTables+0x1000|present)
	binary.LittleEndian.PutUint64(memory[kvmTables+0x1000:], kvmTables+0x2000|present)
	binary.LittleEndian.PutUint64(memory[kvmTables+0x2000:], large)
	region := struct {
		slot, flags      uint32
		at, size, memory uint64
	}{size: kvmMemory, memory: uint64(uintptr(unsafe.Pointer(&memory[0])))}
	if _, err := kvmCall(uintptr(vm), kvmSetUserMemoryRegion, uintptr(unsafe.Pointer(&region))); err != nil {
		return fmt.Errorf("KVM_SET_USER_MEMORY_REGION: %w", err)
	}
	size, err := kvmCall(kvm.Fd(), kvmGetVCPUMmapSize, 0)
	if err != nil {
		return fmt.Errorf("KVM_GET_VCPU_MMAP_SIZE: %w", err)
	}
	cpu, err := kvmCall(uintptr(vm), kvmCreateVCPU, 0)
	if err != nil {
		return fmt.Errorf("KVM_CREATE_VCPU: %w", err)
	}
	defer unix.Close(cpu)
	if err := copyCPUID(kvm.Fd(), uintptr(cpu)); err != nil {
		return err
	}
	run, err := unix.Mmap(cpu, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	return runOut(cpu, run)
}

// copyCPUID lets a guest's processor have all that the host's has: without, it may not even enter 64-bit mode.
func copyCPUID(kvm, cpu uintptr) error {
	const most = 256
	var cpuid struct {
		count, _ uint32
		entries  [most][40]byte
	}
	cpuid.count = most
	if _, err := kvmCall(kvm, kvmGetSupportedCPUID, uintptr(unsafe.Pointer(&cpuid))); err != nil {
		return fmt.Errorf("KVM_GET_SUPPORTED_CPUID: %w", err)
	}
	if _, err := kvmCall(cpu, kvmSetCPUID2, uintptr(unsafe.Pointer(&cpuid))); err != nil {
		return fmt.Errorf("KVM_SET_CPUID2: %w", err)
	}
	return nil
}

// runOut starts at address 0 in 64-bit mode, as kernels run.
func runOut(cpu int, run []byte) error {
	var sregs [312]byte // struct kvm_sregs
	if _, err := kvmCall(uintptr(cpu), kvmGetSregs, uintptr(unsafe.Pointer(&sregs))); err != nil {
		return fmt.Errorf("KVM_GET_SREGS: %w", err)
	}
	const segment, cr0, cr3, cr4, efer = 24, 224, 240, 248, 264 // offsets; eight segments come first, cs before all
	for i := range 6 {
		x := sregs[i*segment : (i+1)*segment]
		clear(x)
		binary.LittleEndian.PutUint32(x[8:], 0xffffffff)
		x[15], x[18], x[20] = 1, 1, 1 // present, no system's, in pages
		if i == 0 {
			binary.LittleEndian.PutUint16(x[12:], 8)
			x[14], x[19] = 11, 1 // code, of 64 bits
		} else {
			binary.LittleEndian.PutUint16(x[12:], 16)
			x[14], x[17] = 3, 1 // data
		}
	}
	binary.LittleEndian.PutUint64(sregs[cr0:], 0x80050033) // PG, AM, WP, NE, ET, MP, PE
	binary.LittleEndian.PutUint64(sregs[cr3:], kvmTables)
	binary.LittleEndian.PutUint64(sregs[cr4:], 0x20)   // PAE
	binary.LittleEndian.PutUint64(sregs[efer:], 0x500) // LME, LMA
	if _, err := kvmCall(uintptr(cpu), kvmSetSregs, uintptr(unsafe.Pointer(&sregs))); err != nil {
		return fmt.Errorf("KVM_SET_SREGS: %w", err)
	}
	var regs [144]byte // struct kvm_regs: 16 registers, rip, rflags
	regs[136] = 2
	if _, err := kvmCall(uintptr(cpu), kvmSetRegs, uintptr(unsafe.Pointer(&regs))); err != nil {
		return fmt.Errorf("KVM_SET_REGS: %w", err)
	}
	var thread atomic.Int32
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // it ends with the goroutine: nothing of it is used again
		thread.Store(int32(unix.Gettid()))
		_, err := kvmCall(uintptr(cpu), kvmRun, 0)
		done <- err
	}()
	for end := time.After(kvmTime); ; {
		select {
		case err := <-done:
			if reason := *(*uint32)(unsafe.Pointer(&run[8])); err == nil && reason != kvmExitIO {
				return fmt.Errorf("/dev/kvm is there, and a guest of two instructions ended for reason %d (KVM_EXIT_…), not %d: it runs none", reason, kvmExitIO)
			}
			if err != nil {
				return fmt.Errorf("KVM_RUN: %w", err)
			}
			return nil
		case <-end:
			run[1] = 1 // immediate_exit; a signal takes the thread out of the guest
			for range 100 {
				_ = unix.Tgkill(os.Getpid(), int(thread.Load()), unix.SIGURG)
				select {
				case <-done:
					return errNoGuests
				case <-time.After(10 * time.Millisecond):
				}
			}
			return errNoGuests
		}
	}
}

var errNoGuests = errors.New("/dev/kvm is there, and a guest of two instructions did not end in 2 s: it runs none")

func kvmCall(fd, request, arg uintptr) (int, error) {
	n, _, errno := unix.Syscall(unix.SYS_IOCTL, fd, request, arg)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}
