// Prints, a fact a line, what a program can find out about how it was started; see facts.py.
"use strict";
const fs = require("fs"), os = require("os"), path = require("path");
const loadedAtStart = process.moduleLoadList.slice();
const listAtStart = [Object.keys(globalThis), Object.getOwnPropertyNames(globalThis)];
const stack = new Error("x").stack;
const facts = {
  argv: () => [process.argv, process.argv0, process.execArgv, process.execPath, process.title, __filename, __dirname],
  main: () => [require.main === module, module.id, module.filename, module.loaded, module.paths, module.children.length, module.parent, module.path, Object.keys(module)],
  cache: () => [Object.keys(require.cache), Object.keys(require("module")._pathCache), require("module").globalPaths, Object.keys(require.extensions)],
  resolve: () => [require.resolve.paths("x"), require.resolve("./main.js"), require("./main.js") === module.exports],
  scope: () => [typeof arguments, arguments.length, this === undefined, typeof exports, arguments.callee === undefined],
  modules: () => loadedAtStart,
  globals: () => listAtStart,
  stack: () => stack,
  versions: () => [process.version, process.versions, process.arch, process.platform, process.release, process.features],
  config: () => process.config,
  flags: () => [...process.allowedNodeEnvironmentFlags].length,
  environment: () => process.env,
  report: () => { const r = process.report.getReport(); return [Object.keys(r), Object.keys(r.header), r.header.commandLine, r.header.cwd, r.environmentVariables, r.libuv.map((h) => [h.type, h.is_active, h.is_referenced]), r.workers, r.userLimits, r.javascriptStack.message, Object.keys(r.resourceUsage)]; },
  handles: () => [process._getActiveHandles().length, process._getActiveRequests().length, process.getActiveResourcesInfo()],
  streams: () => [process.stdin, process.stdout, process.stderr].map((s) => [s.constructor.name, s.isTTY, s.fd, s.readableFlowing, s.writableHighWaterMark]),
  listeners: () => process.eventNames().map((n) => [String(n), process.listenerCount(n)]),
  ids: () => [process.getuid(), process.getgid(), process.geteuid(), process.getgroups(), process.umask(), process.ppid],
  limits: () => fs.readFileSync("/proc/self/limits", "utf8"),
  memory: () => [Object.keys(process.memoryUsage()), process.constrainedMemory(), require("v8").getHeapStatistics().heap_size_limit, require("v8").getHeapSpaceStatistics().map((s) => s.space_name)],
  usage: () => Object.keys(process.resourceUsage()),
  timing: () => [Object.keys(performance.nodeTiming.toJSON()), performance.nodeTiming.loopStart, performance.nodeTiming.loopExit, performance.now() > 0, Math.abs(performance.timeOrigin + performance.now() - Date.now()) < 1000, performance.getEntries().length],
  uptime: () => [process.uptime() > 0, process.uptime() < 3600],
  proc: () => ["cmdline", "comm", "environ", "cgroup", "timerslack_ns", "uid_map", "oom_score_adj"].map((n) => fs.readFileSync("/proc/self/" + n, "utf8")),
  // Numbers of pipes and the like are the kernel's.
  descriptors: () => fs.readdirSync("/proc/self/fd").map((n) => { try { return [n, fs.readlinkSync("/proc/self/fd/" + n).replace(/\[\d+\]/, "[]")]; } catch { return [n, "the folder itself"]; } }),
  descriptorFlags: () => fs.readdirSync("/proc/self/fdinfo").map((n) => { try { return [n, /flags:.*/.exec(fs.readFileSync("/proc/self/fdinfo/" + n, "utf8"))[0]]; } catch { return [n]; } }),
  status: () => fs.readFileSync("/proc/self/status", "utf8").split("\n").filter((l) => !/^(Tgid|Ngid|Pid|PPid|NS|Vm|Rss|Hugetlb|voluntary|nonvoluntary|Cpus_|Mems_)/.test(l)),
  threads: () => fs.readdirSync("/proc/self/task").map((t) => fs.readFileSync(`/proc/self/task/${t}/comm`, "utf8")).sort(),
  mapped: () => [...new Set(fs.readFileSync("/proc/self/maps", "utf8").split("\n").map((l) => l.split(/\s+/)[5]))].sort(),
  processes: () => fs.readdirSync("/proc").filter((p) => /^\d+$/.test(p)).map((p) => fs.readFileSync(`/proc/${p}/cmdline`, "utf8")).sort(),
  file: () => { const s = fs.lstatSync(__filename); return [s.isFile(), s.mode, s.uid, s.gid, s.nlink, s.size === fs.readFileSync(__filename).length, s.blksize, s.mtimeMs > Date.now() - 60000, s.ctimeMs - s.mtimeMs < 1000, s.mtimeMs - s.birthtimeMs < 1000]; },
  source: () => fs.readFileSync(__filename, "utf8") === fs.readFileSync("main.js", "utf8") && fs.realpathSync(__filename),
  folder: () => [fs.readdirSync("."), fs.statSync(".").mode, fs.statSync(".").nlink],
  elsewhere: () => ["/tmp", "/var/tmp", "/dev/shm", "/run", os.homedir()].map((d) => { try { return fs.readdirSync(d); } catch (e) { return e.code; } }),
  functions: () => [process.binding.length, Function.toString.call(facts.argv), (() => { try { null.x; } catch (e) { return e.stack; } })()],
  inspector: () => [require("inspector").url() === undefined, process.debugPort, process.execArgv],
  os: () => [os.hostname(), os.cpus().length, os.availableParallelism(), os.userInfo(), os.tmpdir(), os.getPriority(), os.EOL],
  intl: () => [new Intl.DateTimeFormat().resolvedOptions(), new Date(0).toString(), (1234.5).toLocaleString(), process.env.TZ],
  random: () => new Set([Math.random(), Math.random(), require("crypto").randomUUID()]).size,
  builtins: () => require("module").builtinModules,
  trace: () => [Error.stackTraceLimit, Error.prepareStackTrace, process.sourceMapsEnabled, process.throwDeprecation, process.noDeprecation, process.traceDeprecation],
  loop: () => [Object.keys(performance.eventLoopUtilization()), performance.eventLoopUtilization().idle],
  permission: () => [process.permission, process.exitCode, process.connected, process.send, process.channel],
  diagnostics: () => [process.domain, require("async_hooks").executionAsyncId(), require("async_hooks").triggerAsyncId()],
  v8flags: () => [require("v8").cachedDataVersionTag(), require("v8").startupSnapshot.isBuildingSnapshot()],
};
for (const name of Object.keys(facts)) {
  let value;
  try { value = JSON.stringify(facts[name]()); } catch (e) { value = String(e); }
  console.log(name, value);
}
let order = [];
setTimeout(() => order.push("timeout 30"), 30);
setTimeout(() => order.push("timeout 1"), 1);
process.nextTick(() => order.push("tick"));
Promise.resolve().then(() => order.push("promise"));
queueMicrotask(() => order.push("microtask"));
process.on("beforeExit", () => { if (order) console.log("order", order.join()); order = null; });
process.on("exit", (code) => console.log("exit", code));
process.stdin.on("data", (b) => console.log("stdin", String(b))).on("end", () => console.log("stdin ends"));
