package e2e_test

import (
	_ "embed"
	"strings"

	"outpost.run/outpost/sandbox"
)

//go:embed testdata/differential/facts.py
var pythonFacts string

func pythonCases() []likeness {
	files := func(pairs ...string) sandbox.ExecRequest {
		e := sandbox.ExecRequest{Files: map[string]sandbox.FileContent{}}
		for i := 0; i < len(pairs); i += 2 {
			e.Files[pairs[i]] = sandbox.FileContent(pairs[i+1])
		}
		return e
	}
	in := func(stdin string) sandbox.ExecRequest { return sandbox.ExecRequest{Stdin: &stdin} }
	return []likeness{
		{name: "all facts", code: pythonFacts, exec: in("input"), masks: []mask{idRange}},
		{name: "all facts as root", code: pythonFacts, exec: in("input"), masks: []mask{idRange}, create: sandbox.CreateRequest{Security: &sandbox.SecurityRequest{Preset: new("development")}}},
		{name: "all facts in preset maximum", code: pythonFacts, exec: in("input"), masks: []mask{idRange}, create: sandbox.CreateRequest{Security: &sandbox.SecurityRequest{Preset: new("maximum")}}},
		{name: "what the collector did so far", code: "import gc; print(gc.get_count(), gc.get_stats(), len(gc.get_objects()))"},
		{name: "a program that says nothing", code: "pass"},
		{name: "its own source as it was sent", code: "import sys\nsys.stdout.write(open(__file__).read())\n# ü €\U0001F600 \\ end"},
		{name: "arguments", code: "import sys; print(sys.argv, sys.orig_argv)"},

		// how it ends
		{name: "exit with nothing", code: "import sys; sys.exit()"},
		{name: "exit with a code", code: "import sys; sys.exit(3)"},
		{name: "exit with a code over 255", code: "import sys; sys.exit(256 + 7)"},
		{name: "exit with a negative code", code: "import sys; sys.exit(-1)"},
		{name: "exit with a text", code: "import sys; sys.exit('good bye')"},
		{name: "exit with an object", code: "raise SystemExit((1, 2))"},
		{name: "exit by os._exit with output unflushed", code: "import os; print('lost'); os._exit(5)"},
		{name: "an uncaught exception", code: "def f(x):\n    return 1 / x\n\nf(\n  0\n)"},
		{name: "an exception with a cause and notes", code: "try:\n    {}['k']\nexcept KeyError as e:\n    e.add_note('a note')\n    raise ValueError('outer') from e"},
		{name: "an exception while handling another", code: "try:\n    1/0\nexcept Exception:\n    undefined"},
		{name: "an exception group", code: "raise ExceptionGroup('many', [ValueError(1), ExceptionGroup('inner', [TypeError(2)])])"},
		{name: "a recursion without end", code: "def f(n): return f(n + 1)\nf(0)"},
		{name: "a suggestion in an error", code: "import sys\nsys.pth"},
		{name: "a forgotten import", code: "math.sqrt(2)"},
		{name: "an assertion", code: "assert 1 == 2, 'no'"},
		{name: "KeyboardInterrupt", code: "import os, signal, time; os.kill(os.getpid(), signal.SIGINT); time.sleep(9)"},
		{name: "SIGTERM to itself", code: "import os, signal; print('x', flush=True); os.kill(os.getpid(), signal.SIGTERM)"},
		{name: "SIGKILL to itself", code: "import os, signal; print('x', flush=True); os.kill(os.getpid(), signal.SIGKILL)"},
		{name: "a fault", code: "import ctypes; ctypes.string_at(0)"},
		{name: "a fault that is reported", code: "import faulthandler, ctypes; faulthandler.enable(); ctypes.string_at(0)"},
		{name: "an abort", code: "import os; os.abort()"},
		{name: "SIGPIPE with its default", code: "import os, signal; signal.signal(signal.SIGPIPE, signal.SIG_DFL); r, w = os.pipe(); os.close(r); os.write(w, b'x')"},
		{name: "an alarm", code: "import signal, time; signal.alarm(1); time.sleep(20)"},
		{name: "a timer that is handled", code: "import signal\nsignal.signal(signal.SIGALRM, lambda n, f: print(n, f.f_code.co_filename, f.f_lineno))\nsignal.setitimer(signal.ITIMER_REAL, .05)\nsignal.pause()"},
		{name: "exit functions", code: "import atexit, sys\natexit.register(print, 'first')\natexit.register(print, 'second')\natexit.register(lambda: 1/0)\nsys.exit(4)"},
		{name: "exit in a thread", code: "import threading, sys, os\nt = threading.Thread(target=lambda: sys.exit(3)); t.start(); t.join(); print('goes on')"},
		{name: "os._exit in a thread", code: "import threading, os, time\nthreading.Thread(target=lambda: os._exit(6)).start(); time.sleep(20)"},
		{name: "an exception in a thread", code: "import threading\nt = threading.Thread(target=lambda: 1/0, name='mine'); t.start(); t.join()"},
		{name: "a daemon thread at the end", code: "import threading, time\nthreading.Thread(target=time.sleep, args=(60,), daemon=True).start(); print('done')"},
		{name: "a thread that outlives the main one", code: "import threading, time\nthreading.Thread(target=lambda: (time.sleep(.1), print('late'))).start(); print('main')"},
		{name: "an exception that nobody can raise", code: "class C:\n    def __del__(self): 1/0\nc = C()\ndel c\nprint('on')"},
		{name: "finalizers at the end", code: "class C:\n    def __del__(self): print('gone', __name__)\nc = C()"},
		{name: "its own excepthook", code: "import sys\nsys.excepthook = lambda t, e, tb: print(t, e, tb.tb_frame.f_code.co_filename, tb.tb_lineno)\n1/0"},
		{name: "a warning with its line", code: "import warnings\nwarnings.warn('look')  # here\nwarnings.warn('old', DeprecationWarning)"},
		{name: "a resource warning", code: "import warnings\nwarnings.simplefilter('always')\nopen('/etc/hosts')\nprint('x')"},
		{name: "closed standard output", code: "import sys, os\nos.close(1)\nprint('x')"},
		{name: "a killed group", code: "import os; print('x', flush=True); os.killpg(0, 9)"},

		// what is in main
		{name: "main imported again", code: "import __main__, sys\nprint(__main__.__file__, __main__ is sys.modules['__main__'], vars(__main__) is globals())"},
		{name: "main imported by its name", code: "print(__name__, __spec__ and __spec__.name, globals().get('__cached__'))\nif __name__ == '__main__':\n    import main, os\n    print(main.__spec__.origin, sorted(os.listdir('.')), os.listdir('__pycache__'))"},
		{name: "main run as a module", code: "import sys, runpy\nif __name__ == '__main__': runpy.run_module('main', run_name='again', alter_sys=True)\nelse: print(__name__, __spec__, sys.argv[0])"},
		{name: "main run by its path", code: "import runpy\nif __name__ == '__main__': print(sorted(runpy.run_path(__file__, run_name='again')))\nelse: print('here', __file__)"},
		{name: "main run by another interpreter", code: "import subprocess, sys\nif len(sys.argv) == 1: print(subprocess.run([sys.executable, __file__, 'child'], capture_output=True, text=True))\nelse: print(sys.argv, sys.orig_argv)"},
		{name: "main run as -m and -c", code: "import subprocess, sys\nif __name__ == '__main__' and len(sys.argv) == 1 and sys.argv[0] == __file__:\n    print(subprocess.run([sys.executable, '-m', 'main', 'child'], capture_output=True, text=True))\n    print(subprocess.run([sys.executable, '-c', 'import main'], capture_output=True, text=True))\nelse: print(__name__, sys.argv)"},
		{name: "main from standard input", code: "import subprocess, sys\nif __file__ == '/workspace/main.py' and len(sys.argv) == 1: print(subprocess.run([sys.executable, '-', 'x'], stdin=open(__file__), capture_output=True, text=True))\nelse: print(sys.argv)"},
		{name: "main executed in its place", code: "import os, sys\nif len(sys.argv) == 1: print('first', flush=True); os.execv(sys.executable, ['python3', __file__, 'again'])\nprint(sys.argv, sorted(os.listdir('/proc/self/fd')))"},
		{name: "a process that is forked", code: "import os\nprint('both', flush=True)\nif os.fork() == 0: print('child', open(__file__).read(5)); os._exit(0)\nos.wait(); print('parent')"},
		{name: "processes by fork", code: "import multiprocessing as m\ndef f(x): return x * x, __name__, m.current_process().name\nif __name__ == '__main__':\n    m.set_start_method('fork')\n    with m.Pool(2) as p: print(sorted(r[0] for r in p.map(f, range(4))))", create: patient()},
		{name: "processes by spawn", code: "import multiprocessing as m, sys\ndef f(x): return x * x, __name__, __file__, sys.argv\nif __name__ == '__main__':\n    m.set_start_method('spawn')\n    with m.Pool(1) as p: print(p.map(f, range(2)))", create: patient()},
		{name: "processes by a fork server", code: "import multiprocessing as m\ndef f(x): return x * x, __name__\nif __name__ == '__main__':\n    m.set_start_method('forkserver')\n    with m.Pool(1) as p: print(p.map(f, range(2)))", create: patient()},
		{name: "interpreters in an executor", code: "import concurrent.futures as c, multiprocessing as m\ndef f(x): return x + 1\nif __name__ == '__main__':\n    with c.ProcessPoolExecutor(1, mp_context=m.get_context('spawn')) as p: print(list(p.map(f, [1, 2])))", create: patient()},
		{name: "pickles of its own classes", code: "import pickle\nclass C:\n    def __eq__(self, o): return True\nb = pickle.dumps(C()); print(b, pickle.loads(b) == C(), C.__module__, C.__qualname__)"},
		{name: "its source by inspect", code: "import inspect\ndef f():\n    'text'\n    return 1  # kept\nclass C:\n    def g(self): pass\nprint(inspect.getsource(f), inspect.getsource(C), inspect.getsourcelines(C.g), inspect.getfile(f), inspect.getcomments(f), inspect.getmodule(f))"},
		{name: "a frame's lines", code: "import traceback, sys\ndef f(): return traceback.format_stack(), sys._getframe(1).f_lineno\nprint(f())\nexec(compile('print(traceback.format_stack())', 'other', 'exec'))"},
		{name: "code that is compiled later", code: "try: compile('def f(:\\n', __file__, 'exec')\nexcept SyntaxError as e: print(e.filename, e.lineno, e.text, e.offset)\neval('1 +')"},
		{name: "bytecode", code: "import dis\ndef f(x): return x + 1\ndis.dis(f)\nprint(f.__code__.co_positions and list(f.__code__.co_positions())[:3], f.__code__.co_filename)"},
		{name: "annotations", code: "x: int = 1\ny: 'str'\nprint(__annotations__)"},
		{name: "a docstring", code: "'''What it is.'''\nprint(__doc__)"},
		{name: "a future import", code: "from __future__ import annotations\nx: undefined = 1\nprint(__annotations__)"},
		{name: "profiling and tracing", code: "import sys\nevents = []\nsys.settrace(lambda f, e, a: events.append((f.f_code.co_filename, f.f_lineno, e)))\ndef g(): pass\ng()\nsys.settrace(None)\nprint(events)"},
		{name: "a console", code: "import code\ncode.interact()", exec: in("1 + 1\nundefined\nprint(__name__)\n")},
		{name: "a debugger without input", code: "breakpoint()\nprint('after')"},
		{name: "help", code: "import pydoc\npydoc.help('if')\nprint(pydoc.render_doc('__main__', renderer=pydoc.plaintext))"},
		{name: "asyncio", code: "import asyncio\nasync def f():\n    await asyncio.sleep(.01)\n    p = await asyncio.create_subprocess_exec('echo', 'x', stdout=-1)\n    print(await p.communicate(), asyncio.get_running_loop())\nasyncio.run(f(), debug=False)"},
		{name: "memory traced", code: "import tracemalloc\ntracemalloc.start()\nx = [bytes(1000) for _ in range(10)]\nprint(tracemalloc.take_snapshot().statistics('filename')[0].traceback, tracemalloc.get_traced_memory()[0] > 0)"},
		{name: "lines cached before its file was changed", code: "import linecache, os, traceback\nopen(__file__, 'w').write('changed = 1\\n' * 9)\ntry: 1/0\nexcept ZeroDivisionError: traceback.print_exc()"},
		{name: "its file removed", code: "import os\nos.remove(__file__)\nos.rmdir\n1/0"},
		{name: "its folder listed with everything", code: "import os, stat\nfor e in os.scandir('.'): s = e.stat(follow_symlinks=False); print(e.name, stat.filemode(s.st_mode), s.st_uid, s.st_gid, s.st_nlink, s.st_size, e.is_file(), e.is_symlink())\nprint(os.stat('.').st_nlink, os.stat('.').st_size)"},
		{name: "the inode of its file", code: "import os\nfor n in ('a', 'b'): open(n, 'w')\nprint([os.stat(n).st_ino for n in ('.', '/tmp', 'main.py', 'a', 'b')], os.stat('main.py').st_dev == os.stat('a').st_dev)"},
		{name: "the inodes of files that came with it", code: "import os\nfor n in ('new', 'newer', 'newest'): open(n, 'w')\nprint([(n, os.stat(n).st_ino) for n in ('main.py', 'one', 'two', 'new', 'newer', 'newest')])", exec: files("one", "1", "two", "2")},
		{name: "a lock on its file", code: "import fcntl\nf = open(__file__, 'r+'); fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB); fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB); print(fcntl.fcntl(f, fcntl.F_SETLEASE, fcntl.F_WRLCK) if False else 'locked')"},
		{name: "a lease on its file", code: "import fcntl\nf = open(__file__, 'r+'); print(fcntl.fcntl(f, fcntl.F_SETLEASE, fcntl.F_WRLCK), fcntl.fcntl(f, fcntl.F_GETLEASE))"}, // nobody else has it open
		{name: "its file mapped", code: "import mmap\nf = open(__file__, 'r+b'); m = mmap.mmap(f.fileno(), 0); print(len(m), m[:11]); m[:6] = b'IMPORT'; print(open(__file__).read()[:11])"},
		{name: "who has its file open", code: "import os, glob\nprint([p for p in glob.glob('/proc/[0-9]*/fd/*') if os.path.lexists(p) and 'main' in os.readlink(p)], [l for l in open('/proc/self/maps') if 'main.py' in l])"},
		{name: "a watch on its file", code: "import ctypes, os\nlibc = ctypes.CDLL(None)\nfd = libc.inotify_init1(os.O_NONBLOCK)\nprint(libc.inotify_add_watch(fd, b'/workspace', 0xfff))\nimport time; time.sleep(.2)\ntry: print(len(os.read(fd, 4096)))\nexcept BlockingIOError: print('nothing')"},
		{name: "modules beside it", code: "import helper, package.inner, os\nprint(helper.x, package.inner.y, helper.__file__, sorted(os.listdir('.')), open('data/d.txt').read())", exec: files("helper.py", "x = 1", "package/__init__.py", "", "package/inner.py", "y = 2", "data/d.txt", "text")},
		{name: "a broken module beside it", code: "import helper", exec: files("helper.py", "def f(:\n  pass")},
		{name: "modules that shadow the library's", code: "import json, re, os\nprint(json.mine, re.__file__, os.__file__)", exec: files("json.py", "mine = 1", "re.py", "mine = 2", "os.py", "mine = 3", "sitecustomize.py", "print('site')", "usercustomize.py", "print('user')", "encodings.py", "1/0", "readline.py", "print('r')", "io.py", "1/0")},
		{name: "a __main__.py and a __pycache__ beside it", code: "print(__name__, __spec__)", exec: files("__main__.py", "print('other')", "__pycache__/main.cpython-313.pyc", "x", "main.pyc", "x", "main", "x")},
		{name: "its files collected", code: "open('out.txt', 'w').write('o'); import os; os.symlink('out.txt', 'link'); os.makedirs('d/e'); open('d/e/f', 'wb').write(bytes(range(256)))", exec: sandbox.ExecRequest{Collect: []string{"*", "d/*/f", "missing", "/workspace/main.py", ".*"}}},

		// input and output
		{name: "input that is not read", code: "print('x')", exec: in(strings.Repeat("line\n", 50_000))},
		{name: "input read by lines", code: "import sys\nprint(input('ask '), input(), sys.stdin.readline(), sys.stdin.read())", exec: in("a\nb\nc\nd\r\ne")},
		{name: "no input", code: "import sys\nprint(repr(sys.stdin.read())); input()"},
		{name: "a MiB of input", code: "import sys, hashlib\nb = sys.stdin.buffer.read(); print(len(b), hashlib.sha256(b).hexdigest())", exec: in(strings.Repeat("0123456789abcdef", 1<<16))},
		{name: "input waited for", code: "import select, sys, os\nprint(select.select([0], [], [], 5)[0], os.read(0, 3))", exec: in("abcdef")},
		{name: "bytes that are no text", code: "import sys\nsys.stdin.read()", exec: sandbox.ExecRequest{Stdin: new("/w=="), StdinEncoding: new("base64")}},
		{name: "output that is no text", code: "import sys\nsys.stdout.buffer.write(bytes(range(256)) * 3)", exec: sandbox.ExecRequest{OutputEncoding: new("base64")}},
		{name: "output over the limit", code: "import sys\nfor n in range(1 << 15): print(n); print(n, file=sys.stderr)", exec: sandbox.ExecRequest{MaxOutputBytes: new(1000)}},
		{name: "a flood of output", code: "import os\nfor n in range(300): os.write(1, bytes([48 + n % 10]) * 65536)"},
		{name: "characters that can't be said", code: "print('\\udcff')"},
		{name: "output without a last newline", code: "import sys; sys.stdout.write('a'); sys.stderr.write('b')"},
		{name: "standard streams opened anew", code: "open('/dev/stdout', 'w').write('o'); open('/dev/stderr', 'w').write('e'); print(open('/dev/stdin').read())", exec: in("i")},

		// limits
		{name: "the deadline", code: "print('so far', flush=True)\nwhile True: pass", exec: sandbox.ExecRequest{ResourceLimits: &sandbox.LimitsRequest{TimeoutMS: new(3000)}}},
		{name: "the deadline in sleep with a child", code: "import os, time\nprint('so far', flush=True)\nos.fork()\ntime.sleep(99)", exec: sandbox.ExecRequest{TimeoutSecs: new(3)}},
		{name: "the memory limit", code: "print('so far', flush=True)\nb = bytearray(1 << 30)\nfor i in range(0, 1 << 30, 4096): b[i] = 1", create: memory(64)},
		{name: "just under the memory limit", code: "b = bytearray(30 << 20); print(len(b))", create: memory(64)},
		{name: "the least memory", code: "print('x')", create: memory(16), starts: either},
		{name: "over the least memory", code: "print('x', flush=True); b = bytearray(b'x' * (14 << 20)); print(len(b))", create: memory(16), starts: either},
		{name: "the process limit", code: "import os, time\nn = 0\ntry:\n    while True:\n        if os.fork() == 0: time.sleep(30); os._exit(0)\n        n += 1\nexcept BlockingIOError: print(n)\nos.killpg(0, 9)", create: sandbox.CreateRequest{ResourceLimits: &sandbox.LimitsRequest{Pids: new(40)}}},
		{name: "a full disk", code: "n = 0\ntry:\n    with open('big', 'wb', 0) as f:\n        while True: n += f.write(bytes(1 << 20))\nexcept OSError as e: print(n >> 20, e)", create: sandbox.CreateRequest{ResourceLimits: &sandbox.LimitsRequest{DiskMB: new(32)}}},
		{name: "two processors", code: "import os; print(os.cpu_count(), len(os.sched_getaffinity(0)))", create: sandbox.CreateRequest{ResourceLimits: &sandbox.LimitsRequest{CPUCores: new(float64(2))}}},
	}
}

func memory(mb int) sandbox.CreateRequest {
	return sandbox.CreateRequest{ResourceLimits: &sandbox.LimitsRequest{MemoryMB: &mb, TimeoutMS: new(60_000)}}
}

// patient is for programs that start interpreters of their own on a busy machine.
func patient() sandbox.CreateRequest { return sandbox.CreateRequest{ResourceLimits: roomy()} }

// pythonTexts are programs of which it counts how they are written.
func pythonTexts() (all []likeness) {
	long := strings.Repeat("x = 1  # filler\n", 5000)            // 80 kB: more than a pipe holds
	longer := strings.Repeat("y = 'filler filler'  #\n", 50_000) // 1.1 MB
	for name, code := range map[string]string{
		"empty":                          "",
		"a newline alone":                "\n",
		"only comments":                  "# one\n# two",
		"no last newline":                "print(1)",
		"a last backslash":               "print(1)\\",
		"lines that end with CR LF":      "print(1)\r\nif True:\r\n    print(2)\r\nundefined\r\n",
		"lines that end with CR":         "print(1)\rprint(2)\rundefined",
		"mixed ends of lines":            "print(1)\r\nprint(2)\n\rprint('''a\r\nb\rc''')\nprint(open(__file__, newline='').read().__repr__())\n",
		"tabs":                           "if 1:\n\tprint(1)\n\tprint(2)\nif 1:\n\tundefined",
		"tabs and spaces mixed":          "if 1:\n        print(1)\n\tprint(2)",
		"an error behind a tab":          "if 1:\n\tx =\t= 2",
		"a form feed":                    "print(1)\n\fprint(2)\n\f\fx y",
		"a byte order mark":              "\ufeffprint(1)\nundefined",
		"a mark and its coding":          "\ufeff# coding: utf-8\nprint('ä')\nx y",
		"a mark and another coding":      "\ufeff# coding: latin-1\nprint('ä')",
		"the coding that it has":         "# -*- coding: UTF_8 -*-\nprint('ä', __file__)\nx y",
		"a coding in the third line":     "\n\n# coding: latin-1\nprint('ä')",
		"control characters":             "print(1)\n\x01\n",
		"a ^Z":                           "print(1)\n\x1aprint(2)",
		"a no-break space":               "x\u00a0= 1",
		"a quote from a text":            "print(“x”)",
		"names that are not ASCII":       "größe = 1\nprint(größe, ℌ := 2, H)",
		"wide characters before a fault": "x = '日本語😀' + 1 y",
		"a replacement character":        "print('\ufffd')",
		"line separators":                "print('''a\u2028b\u0085c''')\nx y",
		"no Python":                      "def",
		"a word too much":                "print 'x'",
		"an open bracket":                "print((1,\n2\n",
		"a wrong bracket":                "print((1])\n",
		"a bracket too much":             "print(1))",
		"an open string":                 "x = 'abc\ny = 1",
		"an open triple string":          "x = '''abc\n" + strings.Repeat("line\n", 100),
		"an open f-string":               "x = f'{1'\n",
		"an f-string with a fault":       "x = f'{a b}'",
		"an f-string over lines":         "x = f'''{\n1 +\n}'''",
		"an indent too much":             "x = 1\n  y = 2",
		"an indent missing":              "if 1:\nx = 1",
		"an indent that fits none":       "if 1:\n    x = 1\n  y = 2",
		"return outside":                 "return 1",
		"await outside":                  "await x",
		"yield outside":                  "x = 1\nyield x",
		"break outside":                  "break",
		"nonlocal outside":               "nonlocal x",
		"arguments twice":                "def f(a, a): pass",
		"names used before global":       "def f():\n    x = 1\n    global x",
		"a star import in a function":    "def f():\n    from os import *",
		"a late future import":           "x = 1\nfrom __future__ import annotations",
		"an unknown future":              "from __future__ import braces",
		"assignment to a call":           "f() = 1",
		"assignment in a condition":      "if x = 1: pass",
		"a number with a letter":         "x = 12ab",
		"a number with a zero":           "x = 012",
		"a number too long":              "x = " + strings.Repeat("9", 5000),
		"an escape that is none":         "print('\\d')\nx = b'\\8'\nassert (1, 'x')\nprint('on' is 1)",
		"an escape that is wrong":        "x = '\\N{no such}'",
		"an escape that is short":        "x = '\\x1'",
		"bytes that are no ASCII":        "x = b'ä'",
		"brackets too deep":              "x = " + strings.Repeat("(", 300) + strings.Repeat(")", 300),
		"brackets deep":                  "x = " + strings.Repeat("(", 150) + "1" + strings.Repeat(")", 150) + "\nprint(x)",
		"blocks too deep":                blocks(101),
		"loops too deep":                 loops(21),
		"an expression too long":         "x = " + strings.Repeat("-", 100_000) + "1",
		"a sum of many":                  "x = " + strings.Repeat("1 + ", 20_000) + "1\nprint(x)",
		"a list of many":                 "x = [" + strings.Repeat("1,", 200_000) + "]\nprint(len(x))",
		"a very long line with a fault":  "x = '" + strings.Repeat("a", 200_000) + "' y",
		"a very long line that fails":    "x = '" + strings.Repeat("a", 200_000) + "'; undefined",
		"a fault far down":               long + "x y\n" + long,
		"a fault at the end of much":     longer + "x = (",
		"a fault at the start of much":   "x y\n" + strings.Repeat(longer, 2),
		"an exception far down":          long + "undefined\n" + long,
		"an exception at the end":        longer + "def f():\n    1/0\nf()",
		"much that is run":               longer + "print(len(open(__file__).read()), y)",
		"64 KiB exactly":                 "print(1)\n" + strings.Repeat("#", 65536-9),
		"64 KiB and one":                 "print(1)\n" + strings.Repeat("#", 65536-8),
		"a blank MiB":                    strings.Repeat("\n", 1<<20) + "undefined",
		"a string of a MiB":              "x = '''" + strings.Repeat("0123456789abcde\n", 1<<16) + "'''\nprint(len(x))",
		"exit before the end of much":    "import sys\nsys.exit(3)\n" + longer,
		"a shebang":                      "#!/usr/bin/env python3 -u\nimport sys\nprint(sys.flags.unbuffered)",
		"its source with two codings":    "# coding: utf-8\n# coding: latin-1\nprint('ä')",
		"a type comment and a pragma":    "x = 1  # type: int\nprint(x)  # noqa",
		"match and type statements":      "type A = int\nmatch 1:\n    case int(): print(A)\nmatch x:\n",
		"a walrus astray":                "x := 1",
		"a lambda astray":                "lambda: (yield)\nlambda x=: 1",
		"a decorator alone":              "@property\n",
		"an except without try":          "except: pass",
		"try alone":                      "try:\n    pass\nx = 1",
		"an else astray":                 "else:\n    pass",
		"an import that fails":           "import no.such.module",
		"a relative import":              "from . import x",
	} {
		all = append(all, likeness{name: name, code: code})
	}
	return all
}

func blocks(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(strings.Repeat(" ", i) + "if 1:\n")
	}
	return b.String() + strings.Repeat(" ", n) + "pass"
}

func loops(n int) string {
	return strings.ReplaceAll(blocks(n), "if 1:", "for x in y:")
}
