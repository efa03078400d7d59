package vmm

// CheckKVM says whether the kernel runs guests; try runs a small one.
func CheckKVM(try func() error) Check {
	x := Check{Name: "KVM", Required: true, OK: true, Found: "/dev/kvm runs guests",
		Mend: "a host with hardware virtualization: switch it on in the firmware (VT-x, AMD-V), or nested virtualization on for this virtual machine; load kvm_intel or kvm_amd; give a container /dev/kvm"}
	if err := try(); err != nil {
		x.OK, x.Found = false, err.Error()
	}
	return x
}
