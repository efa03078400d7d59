# Prints, a fact a line, what a program can find out about how it was started. Figures that differ between any two starts
# are left out here, each with its reason; what is printed must be the same however it was started.
import builtins, errno, gc, glob, inspect, io, linecache, locale, os, re, resource, signal, stat, sys, sysconfig, threading, time, traceback

modules_at_start = list(sys.modules)
collector_at_start = gc.get_stats()[1:]
facts = {}


def fact(f):
    try:
        facts[f.__name__] = f()
    except BaseException as e:
        facts[f.__name__] = f"{type(e).__name__}: {e}"
    return f


def read(path):
    with open(path, encoding="utf-8", errors="surrogateescape") as f:
        return f.read()


def proc(name):
    return read("/proc/self/" + name)


def lines(text, *without):
    return [line for line in text.splitlines() if not line.startswith(without)]


def addresses(text):
    return re.sub(r"0x[0-9a-f]+", "0x", text)


# --- the interpreter's own state

@fact
def arguments(): return sys.argv, sys.orig_argv, sys.executable, sys._base_executable, sys.prefix, sys.exec_prefix, sys.base_prefix
@fact
def flags(): return str(sys.flags), sys._xoptions, sys.warnoptions, sys.dont_write_bytecode, sys.pycache_prefix, sys.flags.safe_path
@fact
def paths(): return sys.path, sys.path_hooks.__len__(), [str(h) for h in sys.meta_path], addresses(str(sys.path_hooks))
@fact
def importers(): return {k: addresses(repr(v)) for k, v in sys.path_importer_cache.items()}
@fact
def importer_times(): return {k: v._path_mtime > 0 for k, v in sys.path_importer_cache.items() if hasattr(v, "_path_mtime")}
@fact
def modules(): return modules_at_start
@fact
def module_files(): return {n: getattr(m, "__file__", None) for n, m in sys.modules.items()}
@fact
def main_names(): return [n for n in vars(sys.modules["__main__"]) if n.startswith("__")]
@fact
def main_values(): return __name__, __file__, __spec__, __package__, __doc__, __cached__, addresses(repr(__loader__)), __builtins__ is builtins, __loader__.path, __loader__.name
@fact
def main_annotations(): return __annotations__
@fact
def main_loader_reads(): return __loader__.get_source("__main__") == read(__file__), __loader__.get_data(__file__) == open(__file__, "rb").read()
@fact
def main_source(): return inspect.getsource(sys.modules["__main__"]) == read(__file__), inspect.getsourcefile(read), inspect.getsource(read)
@fact
def main_repr(): return repr(sys.modules["__main__"]), repr(sys.modules["__main__"].__dict__.keys())
@fact
def code(): c = sys._getframe(1).f_code if sys._getframe(1) else None; return c.co_filename, c.co_name, c.co_qualname, c.co_firstlineno
@fact
def frames(): return [(f.filename, f.name, f.lineno) for f in traceback.extract_stack()]
@fact
def cached_lines(): return linecache.getline(__file__, 1), list(linecache.cache)
@fact
def encodings(): return sys.getdefaultencoding(), sys.getfilesystemencoding(), sys.getfilesystemencodeerrors(), locale.getlocale(), locale.getpreferredencoding(), locale.setlocale(locale.LC_ALL)
@fact
def streams(): return [(s.name, s.mode, s.encoding, s.errors, s.line_buffering, s.write_through, s.newlines, s.isatty(), s.fileno(), type(s.buffer).__name__, type(s.buffer.raw).__name__, s is o) for s, o in ((sys.stdin, sys.__stdin__), (sys.stdout, sys.__stdout__), (sys.stderr, sys.__stderr__))]
@fact
def hooks(): return [getattr(sys, h) is getattr(sys, o) for h, o in (("excepthook", "__excepthook__"), ("displayhook", "__displayhook__"), ("unraisablehook", "__unraisablehook__"), ("breakpointhook", "__breakpointhook__"))], sys.gettrace(), sys.getprofile(), sys.get_asyncgen_hooks(), sys.get_coroutine_origin_tracking_depth(), hasattr(sys, "ps1"), hasattr(sys, "last_exc"), sys.exception()
@fact
def numbers(): return sys.getswitchinterval(), sys.getrecursionlimit(), sys.get_int_max_str_digits(), gc.isenabled(), gc.get_threshold(), gc.get_debug(), gc.callbacks, threading.stack_size(), sys.getdlopenflags()
@fact
def collector(): return collector_at_start
@fact
def threads(): return [(t.name, t.daemon, t.is_alive(), t is threading.main_thread()) for t in threading.enumerate()], threading.active_count(), len(sys._current_frames())
@fact
def implementation(): return sys.version, sys.implementation.cache_tag, sys.abiflags, sys.platform, sysconfig.get_paths()
@fact
def site():
    import site
    return site.ENABLE_USER_SITE, site.USER_SITE, site.USER_BASE, site.getsitepackages(), "sitecustomize" in sys.modules, "usercustomize" in sys.modules
@fact
def exit_functions():
    import atexit
    return atexit._ncallbacks()
@fact
def audit():
    seen = []
    sys.addaudithook(lambda event, args: seen.append(event) if event.startswith("open") else None)
    read(__file__)
    return seen[:4]
@fact
def random_state():
    import random, uuid, secrets
    return len({random.random(), uuid.uuid4().int, secrets.token_hex(), hash("a"), id(facts)}), os.environ.get("PYTHONHASHSEED")
@fact
def warnings_filters():
    import warnings
    return addresses(str(warnings.filters)), warnings.defaultaction
@fact
def codecs_known():
    import codecs
    return [codecs.lookup(n).name for n in ("utf8", "latin-1", "ascii", "cp1252", "idna")]

# --- what the kernel says of the process

@fact
def command_line(): return proc("cmdline"), os.readlink("/proc/self/exe"), os.getcwd(), os.readlink("/proc/self/cwd"), os.readlink("/proc/self/root"), proc("comm")
@fact
def environment(): return proc("environ"), dict(os.environ), list(os.environ)
@fact
def descriptors(): # the numbers of pipes are the kernel's, another each time
    return sorted((int(fd), re.sub(r"\[\d+\]", "[]", os.readlink("/proc/self/fd/" + fd))) for fd in os.listdir("/proc/self/fd") if os.path.exists("/proc/self/fd/" + fd))
@fact
def next_descriptor(): f = os.open("/", os.O_RDONLY); os.close(f); return f
@fact
def descriptor_details(): # without the inode numbers and mount ids
    return {fd: lines(proc("fdinfo/" + fd), "ino:", "mnt_id:") for fd in "012"}
@fact
def descriptor_stats(): return [(stat.filemode(s.st_mode), s.st_uid, s.st_gid, s.st_nlink, s.st_size, s.st_blksize) for s in map(os.fstat, range(3))]
@fact
def descriptor_flags():
    import fcntl
    return [(fcntl.fcntl(fd, fcntl.F_GETFL), fcntl.fcntl(fd, fcntl.F_GETFD), fcntl.fcntl(fd, fcntl.F_GETPIPE_SZ), fcntl.fcntl(fd, fcntl.F_GETOWN)) for fd in range(3)]
@fact
def status(): # pid numbers, memory figures, and counts of how often it waited
    return lines(proc("status"), "Tgid", "Ngid", "Pid", "PPid", "NStgid", "NSpid", "NSpgid", "NSsid", "Vm", "Rss", "HugetlbPages", "voluntary", "nonvoluntary", "Cpus_allowed", "Mems_allowed")
@fact
def processors(): return len(os.sched_getaffinity(0)), os.cpu_count(), os.process_cpu_count()
@fact
def pids(): return len({os.getpid(), os.getsid(0), os.getpgrp()}), os.getppid(), proc("status").split("NSpid:")[1].splitlines()[0].count("\t")
@fact
def stat_fields(): # state, tty, flags, priority, nice, threads, itrealvalue, signals, exit signal, rt priority, policy
    f = proc("stat").rsplit(") ", 1)[1].split()
    return [f[i - 3] for i in (3, 7, 8, 9, 18, 19, 20, 21, 31, 32, 33, 34, 38, 40, 41, 43, 44, 52)]
@fact
def limits(): return proc("limits")
@fact
def signals(): return {s.name: str(signal.getsignal(s)) for s in signal.valid_signals() if isinstance(s, signal.Signals)}, signal.pthread_sigmask(signal.SIG_BLOCK, []), signal.sigpending(), signal.getitimer(signal.ITIMER_REAL), signal.getitimer(signal.ITIMER_PROF), signal.alarm(0), signal.set_wakeup_fd(-1)
@fact
def timers(): return proc("timers"), proc("timerslack_ns")
@fact
def ids(): return os.getresuid(), os.getresgid(), os.getgroups(), proc("loginuid"), proc("sessionid"), proc("uid_map"), proc("gid_map"), proc("setgroups")
@fact
def umask(): m = os.umask(0); os.umask(m); return m
@fact
def terminal():
    try: os.open("/dev/tty", os.O_RDWR)
    except OSError as e: return errno.errorcode[e.errno]
    return "there is one"
@fact
def scheduling(): return os.sched_getscheduler(0), os.sched_getparam(0), os.nice(0), os.getpriority(os.PRIO_PGRP, 0), proc("oom_score_adj"), proc("oom_adj"), proc("autogroup").split()[1:]
@fact
def scheduling_names(): return [line.split(":")[0].strip() for line in proc("sched").splitlines()[1:]]
@fact
def groups(): return proc("cgroup"), proc("cpuset") if os.path.exists("/proc/self/cpuset") else None
@fact
def mounts(): # without ids of mounts and the number of the loop device; the files of /dev come in any order
    return sorted(re.sub(r"(loop|lowerdir|upperdir|workdir)[^, ]*", r"\1", " ".join(line.split()[3:])) for line in proc("mountinfo").splitlines())
@fact
def mapped_files(): return sorted({line.split(None, 5)[5] for line in proc("maps").splitlines() if len(line.split(None, 5)) > 5})
@fact
def mapped_rights(): return sorted({(line.split()[1], line.split(None, 5)[5]) for line in proc("maps").splitlines() if len(line.split(None, 5)) > 5})
@fact
def waiting(): return proc("wchan")
@fact
def personality(): return proc("personality"), proc("coredump_filter")
@fact
def controls():
    import ctypes
    libc = ctypes.CDLL(None)
    pdeath, reaper = ctypes.c_int(), ctypes.c_int()
    libc.prctl(2, ctypes.byref(pdeath)), libc.prctl(37, ctypes.byref(reaper))
    return libc.prctl(3), libc.prctl(7), libc.prctl(21), libc.prctl(27), libc.prctl(30), libc.prctl(39), pdeath.value, reaper.value, [libc.prctl(23, n) for n in range(41)], [libc.prctl(47, 1, n) for n in range(41)]
@fact
def namespaces(): return sorted(os.listdir("/proc/self/ns"))
@fact
def processes(): return sorted(read(f"/proc/{p}/cmdline").replace("\0", " ") for p in os.listdir("/proc") if p.isdigit())
@fact
def tasks(): return len(os.listdir("/proc/self/task")), [read(t + "/comm") for t in glob.glob("/proc/self/task/*")], [read(t + "/children") for t in glob.glob("/proc/self/task/*")]
@fact
def ipc(): return read("/proc/sysvipc/shm"), read("/proc/sysvipc/sem"), read("/proc/sysvipc/msg"), os.listdir("/dev/shm"), os.listdir("/dev/mqueue") if os.path.isdir("/dev/mqueue") else None
@fact
def locks(): return read("/proc/locks")
@fact
def unix_sockets(): return len(read("/proc/net/unix").splitlines()), len(read("/proc/net/tcp").splitlines())
@fact
def host_name(): return os.uname().nodename, read("/etc/hostname"), read("/etc/hosts"), re.sub(r"[\d.]+", "", read("/etc/resolv.conf"))

# --- the program's file and what lies around it

@fact
def file(): # the inode's number and the times are left to the test of times below
    s = os.lstat(__file__)
    return stat.filemode(s.st_mode), s.st_uid, s.st_gid, s.st_nlink, s.st_size == len(read(__file__).encode()), s.st_blocks > 0, s.st_dev == os.stat(".").st_dev, s.st_blksize
@fact
def file_attributes(): return os.listxattr(__file__), os.listxattr(".")
@fact
def file_times(): # made, written and changed when the exec began
    s = os.stat(__file__)
    return s.st_mtime > time.time() - 60, 0 <= s.st_ctime - s.st_mtime < 1, s.st_atime >= s.st_mtime, int(s.st_birthtime) if hasattr(s, "st_birthtime") else None
@fact
def folder(): # hidden files, too
    return sorted(os.listdir(".")), stat.filemode(os.stat(".").st_mode), os.stat(".").st_nlink, os.stat(".").st_uid, os.stat(".").st_size
@fact
def files_elsewhere():
    found = []
    for top in ("/tmp", "/var/tmp", "/dev/shm", "/run", "/home", "/root", "/workspace", "/var/cache", "/var/lib/python", "/etc"):
        for at, folders, files in os.walk(top): found += [os.path.join(at, f) for f in files]
    return len(found), sorted(f for f in found if not f.startswith("/etc"))
@fact
def newest_files(): # what was changed since the machine was made: nothing but the program's file
    started = os.stat("/etc/resolv.conf").st_mtime
    found = []
    for at, folders, files in os.walk("/", topdown=True):
        folders[:] = [f for f in folders if os.path.join(at, f) not in ("/proc", "/sys", "/dev")]
        for f in files:
            try: s = os.lstat(os.path.join(at, f))
            except OSError: continue
            if s.st_mtime > started - 1: found.append(os.path.join(at, f))
    return found
@fact
def rename_over(): os.rename(__file__, "moved.py"); os.rename("moved.py", __file__); return os.listdir(".")
@fact
def write_to_it():
    with open(__file__, "a") as f: f.write("#")
    return read(__file__)[-2:]
@fact
def remove_it(): os.remove(__file__); return os.path.exists(__file__), os.listdir(".")
@fact
def disk(): s = os.statvfs("."); return s.f_bsize, s.f_blocks, s.f_files, s.f_flag, s.f_namemax, s.f_files - s.f_ffree, s.f_blocks - s.f_bfree

# --- what it is given

@fact
def standard_input(): return sys.stdin.read(), sys.stdin.read()
@fact
def usage(): # figures of memory and processor time are left out; it waited for nobody yet
    u = resource.getrusage(resource.RUSAGE_CHILDREN)
    return u.ru_utime, u.ru_stime, u.ru_maxrss, u.ru_minflt
@fact
def clocks(): return time.get_clock_info("monotonic").resolution, time.timezone, time.tzname, time.daylight, time.time() > 1e9

for name, value in facts.items():
    print(name, repr(value))
