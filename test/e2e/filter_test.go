package e2e_test

import "testing"

// call is a system call by its number, with errno kept; denied names what neither EPERM nor ENOSYS refused.
const call = `
import ctypes, errno, os, mmap, socket
libc = ctypes.CDLL(None, use_errno=True)
def call(n, *args):
	ctypes.set_errno(0)
	r = libc.syscall(ctypes.c_long(n), *[a if isinstance(a, bytes) else ctypes.c_long(a) for a in args])
	return 0 if r >= 0 else ctypes.get_errno()
def denied(name, n, *args, want=(errno.EPERM,)):
	e = call(n, *args)
	if e not in want: print(name, "answers", errno.errorcode.get(e, e))
`

func TestWhatTheContractDeniesIsDenied(t *testing.T) {
	inEveryPreset(t, call+`
open("d", "w").close()
denied("mount", 165, b"none", b"/tmp", b"tmpfs", 0, 0)
denied("umount2", 166, b"/proc", 2)
denied("pivot_root", 155, b"/", b"/")
denied("fsopen", 430, b"tmpfs", 0)
denied("fsmount", 432, 0, 0, 0)
denied("fspick", 433, -100, b"/", 0)
denied("open_tree", 428, -100, b"/", 1)
denied("move_mount", 429, -100, b"/proc", -100, b"/tmp", 0)
denied("mount_setattr", 442, -100, b"/", 0, 0, 0)
denied("setns", 308, 0, 0)
for flag in (0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000, 0x80):
	denied(f"unshare {flag:#x}", 272, flag)
	if flag != 0x80: denied(f"clone {flag:#x}", 56, flag | 17, 0, 0, 0, 0)
denied("clone3", 435, 0, 0, want=(errno.ENOSYS,))
denied("bpf", 321, 0, 0, 0)
denied("perf_event_open", 298, 0, 0, -1, -1, 0)
denied("io_uring_setup", 425, 1, 0)
denied("io_uring_enter", 426, 0, 0, 0, 0, 0)
denied("io_uring_register", 427, 0, 0, 0, 0)
denied("userfaultfd", 323, 1)
denied("add_key", 248, b"user", b"k", b"v", 1, -3)
denied("request_key", 249, b"user", b"k", 0, 0)
denied("keyctl", 250, 0, -3, 0)
denied("kexec_load", 246, 0, 0, 0, 0)
denied("kexec_file_load", 320, 0, 0, 0, 0, 0)
denied("init_module", 175, 0, 0, b"")
denied("finit_module", 313, 0, b"", 0)
denied("delete_module", 176, b"x", 0)
denied("open_by_handle_at", 304, -100, 0, 0)
denied("swapon", 167, b"d", 0)
denied("reboot", 169, 0xfee1dead, 672274793, 0x89abcdef, 0)
denied("sethostname", 170, b"x", 1)
denied("settimeofday", 164, 0, 0)
denied("clock_settime", 227, 0, 0)
denied("acct", 163, 0)
denied("syslog", 103, 3, 0, 0)
denied("quotactl", 179, 0, 0, 0, 0)
denied("iopl", 172, 3)
denied("ioperm", 173, 0, 1, 1)
denied("fanotify_init", 300, 0, 0)
`)
}

func TestOtherCallingConventionsAreDenied(t *testing.T) {
	inEveryPreset(t, call+`
for n in (1, 39, 165, 272, 512, 520, 545, 547): # write, getpid, mount, unshare and numbers of x32 alone
	e = call(0x40000000 | n, 0, 0, 0, 0, 0)
	if e not in (errno.EPERM, errno.ENOSYS): print(f"x32 call {n} answers", errno.errorcode.get(e, e))
# int 0x80 with eax, ebx, ecx: mov eax,edi; mov ebx,esi; int 0x80
code = b"\x53\x89\xf8\x89\xf3\x89\xd1\x31\xd2\xcd\x80\x5b\xc3"
page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
page.write(code)
at = ctypes.addressof(ctypes.c_char.from_buffer(page))
f = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_int)(at)
for name, n in (("getpid", 20), ("mount", 21), ("unshare", 310), ("socketcall", 102), ("keyctl", 288), ("bpf", 357)):
	child = os.fork() # it may be killed for it, which is as good
	if child == 0: os._exit(-f(n, 0, 0) & 127)
	_, status = os.waitpid(child, 0)
	e = os.WEXITSTATUS(status) if os.WIFEXITED(status) else 0
	if os.WIFEXITED(status) and e not in (errno.EPERM, errno.ENOSYS): print(f"i386 {name} answers", e)
`)
}

func TestSocketsAreOfTheFourAllowedKinds(t *testing.T) {
	inEveryPreset(t, call+`
allowed = {socket.AF_INET, socket.AF_INET6, socket.AF_UNIX}
for family in range(1, 50):
	if family == 16: continue # NETLINK
	for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET):
		e = call(41, family, kind, 0)
		if family in allowed and kind == socket.SOCK_DGRAM and e: print("family", family, "answers", errno.errorcode[e])
		if family not in allowed and e != errno.EPERM: print("family", family, "answers", errno.errorcode.get(e, e))
for protocol in range(0, 25):
	e = call(41, 16, socket.SOCK_RAW, protocol)
	if (e == 0) != (protocol == 0): print("netlink", protocol, "answers", errno.errorcode.get(e, e))
for family in (16, 17, 40, 38): # NETLINK, PACKET, VSOCK, ALG
	if (e := call(53, family, 1, 0, 0)) != errno.EPERM: print("socketpair of", family, "answers", errno.errorcode.get(e, e))
if call(41, socket.AF_INET, socket.SOCK_RAW, 1) == 0: print("a raw socket was made")
`)
}
