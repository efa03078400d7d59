# Looks for what an earlier exec left, then leaves a mark in every place it can think of, then looks again: it must find its
# own marks now, or the search is blind. All marks begin the same; the words between @ are the test's.
import ctypes, json, mmap, os, resource, signal, socket, sys, time

WHOLE, AGAIN = "@WHOLE@" == "true", "@AGAIN@" == "true" # look through the whole tree; look again
MARK, ID = "".join(["@HALF@", "@OTHER@"]), "@ID@" # not in one piece: the program's own text is searched, too
mine = MARK + ID
libc = ctypes.CDLL(None, use_errno=True)
KEY = 0x6d61726b  # "mark", of System V IPC
FOLDERS = ["/", "/tmp", "/var/tmp", "/dev/shm", "/dev", "/dev/mqueue", "/run", "/run/lock", "/var/lock", "/var/run", "/workspace", "/home", "/home/sandbox", "/root", "/etc", "/etc/cron.d",
    "/etc/cron.daily", "/etc/profile.d", "/etc/ld.so.conf.d", "/etc/systemd/system", "/var/spool/cron", "/var/spool/cron/crontabs", "/var/cache", "/var/lib", "/var/log", "/var/mail", "/opt", "/srv", "/mnt", "/media",
    "/usr/local/bin", "/usr/local/lib", "/usr/bin", "/usr/lib/python3.13", "/usr/lib/python3.13/__pycache__", "/usr/lib/python3/dist-packages", "/usr/local/lib/python3.13/dist-packages", "/usr/lib/locale", "/usr/share", "/data", "/proc", "/sys"]
FILES = ["/etc/hosts", "/etc/resolv.conf", "/etc/hostname", "/etc/passwd", "/etc/environment", "/etc/profile", "/etc/bash.bashrc", "/etc/ld.so.preload", "/etc/ld.so.cache", "/etc/localtime", "/etc/python3.13/sitecustomize.py",
    "/usr/lib/python3.13/os.py", "/usr/lib/python3.13/encodings/__init__.py", "/usr/lib/python3.13/sitecustomize.py", "/usr/lib/python3.13/__pycache__/os.cpython-313.pyc", "/home/sandbox/.bashrc", "/home/sandbox/.profile", "/root/.bashrc",
    "/proc/self/comm", "/proc/self/oom_score_adj", "/proc/sys/kernel/hostname", "/proc/sys/kernel/domainname", "/proc/sys/kernel/core_pattern", "/proc/sys/fs/mqueue/msg_max", "/proc/self/autogroup", "/proc/self/timerslack_ns"]
DEEP = ("/tmp", "/var/tmp", "/dev", "/run", "/workspace", "/home", "/root", "/data", "/var/spool", "/srv", "/opt", "/mnt", "/media")
found, left = [], []


def quietly(f):
    try: return f()
    except (OSError, ValueError, PermissionError, AttributeError, UnicodeError): return None


def saw(where, text):
    if isinstance(text, bytes): text = text.decode("utf-8", "replace")
    at = (text or "").find(MARK)
    if at >= 0: found.append((where, text[at:at + 40]))


def content(path, size=1 << 16):
    with open(path, "rb") as f: return f.read(size)


# --- looking

def look_in_tree():
    stack = ["/"] if WHOLE else FOLDERS + [os.path.expanduser("~")]
    while stack:
        at = stack.pop()
        if at == "/proc" or at == "/sys" or at.startswith(("/proc/", "/sys/")): continue
        for e in quietly(lambda: list(os.scandir(at))) or []:
            saw("name of " + e.path, e.name)
            if e.is_dir(follow_symlinks=False) and (WHOLE or at.startswith(DEEP) or e.name.startswith(".")): stack.append(e.path)
            elif e.is_symlink(): saw("link " + e.path, quietly(lambda: os.readlink(e.path)))
            elif e.is_file(follow_symlinks=False):
                s = quietly(lambda: e.stat(follow_symlinks=False))
                if s and (s.st_ctime > STARTED - 1 or e.path in FILES): saw("file " + e.path, quietly(lambda: content(e.path)))
    for path in FOLDERS + FILES:
        for name in quietly(lambda: os.listxattr(path)) or []: saw(f"attribute of {path}", name + str(quietly(lambda: os.getxattr(path, name))))


def look_in_memory():
    for name in ("shm", "sem", "msg"):
        if len((quietly(lambda: content("/proc/sysvipc/" + name)) or b"").splitlines()) > 1: found.append(("sysvipc " + name, "an object"))
    if libc.shmget(KEY, 0, 0) >= 0: found.append(("shm", "by its key"))
    if libc.semget(KEY, 0, 0) >= 0: found.append(("sem", "by its key"))
    if libc.msgget(KEY, 0) >= 0: found.append(("msg", "by its key"))
    if libc.mq_open(f"/{MARK}".encode(), os.O_RDONLY) >= 0: found.append(("mq", "by its name"))
    saw("abstract sockets", quietly(lambda: content("/proc/net/unix")))
    for name in ("tcp", "tcp6", "udp", "udp6", "raw"): # :7A69 is port 31337
        if b":7A69" in (quietly(lambda: content("/proc/net/" + name)) or b""): found.append((name, "port"))
    s = socket.socket(socket.AF_UNIX)
    if quietly(lambda: s.connect("\0" + MARK) or True): found.append(("abstract socket", "answers"))
    s.close()
    saw("keys", quietly(lambda: content("/proc/keys")))
    for ring in (-1, -2, -3, -4, -5):
        if libc.syscall(250, 10, ring, b"user", MARK.encode(), 0) >= 0: found.append(("keyring", str(ring)))


def look_at_process():
    for p in os.listdir("/proc"):
        if p.isdigit():
            for n in ("cmdline", "comm", "environ"):
                text = quietly(lambda: content(f"/proc/{p}/{n}"))
                if int(p) != os.getpid() or n == "environ": saw(f"process {n}", text)
            if int(p) not in (1, os.getpid()): found.append(("a process", str(quietly(lambda: content(f"/proc/{p}/cmdline")))))
    saw("comm", content("/proc/self/comm"))
    saw("environ", str(os.environ))
    saw("host name", socket.gethostname())
    saw("current folder", os.getcwd())
    for fd in os.listdir("/proc/self/fd"): saw("descriptor", quietly(lambda: os.readlink("/proc/self/fd/" + fd)))
    if set(map(int, os.listdir("/proc/self/fd"))) - {0, 1, 2, 3}: found.append(("descriptors", str(os.listdir("/proc/self/fd"))))
    saw("maps", content("/proc/self/maps"))
    saw("modules", " ".join(sys.modules) + " ".join(dir(__builtins__)) + str(sys.path) + str(sys.argv) + str(vars(sys).get("mark")))
    saw("module values", str([v for n, m in list(sys.modules.items()) if n != "__main__" for k, v in list(vars(m).items()) if isinstance(v, str)]))
    if signal.getitimer(signal.ITIMER_REAL)[0] or signal.getitimer(signal.ITIMER_VIRTUAL)[0]: found.append(("timer", "runs"))
    if content("/proc/self/timers"): found.append(("timers", str(content("/proc/self/timers"))))
    if signal.getsignal(signal.SIGUSR1) is not signal.SIG_DFL or signal.SIGUSR2 in signal.pthread_sigmask(signal.SIG_BLOCK, []): found.append(("signals", "changed"))
    if resource.getrlimit(resource.RLIMIT_STACK)[0] == 1 << 20: found.append(("rlimit", "changed"))
    mask = os.umask(0)
    os.umask(mask)
    if mask != 0o022: found.append(("umask", "changed"))
    if os.nice(0) != 0: found.append(("nice", "changed"))
    if content("/proc/self/coredump_filter").strip() == b"0000007f": found.append(("coredump filter", "changed"))
    if content("/proc/self/timerslack_ns").strip() == b"77777": found.append(("timer slack", "changed"))
    if libc.prctl(3) != 1: found.append(("dumpable", "changed"))
    if libc.personality(0xffffffff) != 0: found.append(("personality", "changed"))


def look():
    found.clear()
    look_in_tree(); look_in_memory(); look_at_process()
    return list(found)


# --- leaving

def leave(what, f):
    try:
        f()
        left.append(what)
    except (OSError, ValueError, AttributeError): pass


def write(path, text=None):
    with open(path, "w") as f: f.write(text or mine)


def append(path):
    with open(path, "a") as f: f.write("\n# " + mine + "\n")


def check(n):
    if n < 0: raise OSError(ctypes.get_errno(), "")
    return n


keep = []


def leave_marks():
    for d in FOLDERS:
        leave("a file in " + d, lambda: write(f"{d}/{mine}"))
        leave("a hidden file in " + d, lambda: write(f"{d}/.{mine}"))
    for f in FILES: leave("text in " + f, lambda: append(f))
    for n in [os.path.expanduser("~/" + n) for n in (".cache/x", ".config/x", ".local/lib/python3.13/site-packages/usercustomize.py", ".local/lib/python3.13/site-packages/x.pth", ".python_history", ".pydistutils.cfg", ".netrc", ".node_repl_history", ".npmrc")]:
        leave(n, lambda: (os.makedirs(os.path.dirname(n), exist_ok=True), write(n, f"'{mine}'")))
    leave("links", lambda: (os.symlink(mine, "/tmp/link"), os.mkfifo("/tmp/fifo" + mine), os.mkdir("/tmp/d" + mine)))
    leave("a module beside", lambda: write("/workspace/helper.py", f"x = '{mine}'"))
    leave("a compiled module", lambda: __import__("helper"))
    leave("attributes", lambda: os.setxattr("/workspace", "user.mark", mine.encode()))
    leave("times and rights", lambda: (os.utime("/workspace", (0, 0)), os.chmod("/workspace", 0o777)))
    leave("a deleted file that is open", lambda: (keep.append(open("/tmp/open" + mine, "w")), os.remove("/tmp/open" + mine)))
    leave("a memory file", lambda: keep.append(os.memfd_create(mine)))
    leave("shm", lambda: check(libc.shmget(KEY, 4096, 0o1666)))
    leave("sem", lambda: check(libc.semget(KEY, 1, 0o1666)))
    leave("msg", lambda: check(libc.msgget(KEY, 0o1666)))
    leave("mq", lambda: keep.append(check(libc.mq_open(f"/{MARK}".encode(), os.O_CREAT | os.O_RDWR, 0o666, None))))
    leave("a key", lambda: check(libc.syscall(248, b"user", mine.encode(), b"x", 1, -3)))
    leave("a key of the user", lambda: check(libc.syscall(248, b"user", MARK.encode(), b"x", 1, -4)))
    def sockets():
        for family, to in ((socket.AF_UNIX, "\0" + MARK), (socket.AF_UNIX, "/tmp/s" + mine), (socket.AF_INET, ("0.0.0.0", 31337))):
            s = socket.socket(family); s.bind(to); s.listen(); s.set_inheritable(True); keep.append(s)
    leave("sockets", sockets)
    leave("inotify", lambda: check(libc.inotify_add_watch(check(libc.inotify_init1(0)), b"/tmp", 0xfff)))
    leave("timers", lambda: (signal.signal(signal.SIGALRM, signal.SIG_IGN), signal.setitimer(signal.ITIMER_REAL, 500), signal.setitimer(signal.ITIMER_VIRTUAL, 500)))
    leave("a posix timer", lambda: check(libc.timer_create(1, None, ctypes.byref(ctypes.c_void_p()))))
    leave("signals", lambda: (signal.signal(signal.SIGUSR1, signal.SIG_IGN), signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])))
    leave("a name", lambda: check(libc.prctl(15, mine[:15].encode())))
    leave("slack, personality, dumpable", lambda: (libc.prctl(29, 77777), libc.personality(0x0040000), libc.prctl(4, 0)))
    leave("core filter", lambda: write("/proc/self/coredump_filter", "0x7f"))
    leave("host name", lambda: socket.sethostname(MARK))
    leave("environment", lambda: os.environ.update(MARK=mine))
    leave("limits", lambda: (resource.setrlimit(resource.RLIMIT_STACK, (1 << 20, resource.getrlimit(resource.RLIMIT_STACK)[1])), os.umask(0o077), os.nice(5)))
    leave("modules", lambda: (setattr(os, MARK, mine), setattr(sys, "mark", mine), setattr(__builtins__, MARK, mine), sys.path.append("/" + mine), sys.modules.__setitem__(mine, os)))
    leave("locked memory", lambda: keep.append(mmap.mmap(-1, 4096)))
    leave("a mount", lambda: check(libc.mount(b"none", b"/mnt", b"tmpfs", 0, mine.encode())))
    def processes():
        if os.fork() == 0: # ignores what it can, in a session of its own, a child of nobody
            os.setsid()
            if os.fork(): os._exit(0)
            for n in range(1, 65): quietly(lambda: signal.signal(n, signal.SIG_IGN))
            os.execve("/bin/sleep", [mine, "1000"], {"MARK": mine})
        os.wait()
    leave("processes", processes)


STARTED = os.stat("/etc/resolv.conf").st_mtime
before = look()
leave_marks()
after = []
for _ in range(2000 if AGAIN else 0): # until the process that it left has its name
    found.clear()
    look_at_process()
    if any(w == "process cmdline" for w, _ in found): after = look(); break
    time.sleep(.005)
print(json.dumps({"before": before, "left": left, "seen": sorted({w for w, _ in after})}))
