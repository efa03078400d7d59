// What marks.py does, in Node.
const fs = require("fs"), os = require("os"), path = require("path"), net = require("net");
const MARK = ["@HALF@", "@OTHER@"].join(""), ID = "@ID@", mine = MARK + ID;
const folders = ["/", "/tmp", "/var/tmp", "/dev/shm", "/dev/mqueue", "/run", "/run/lock", "/workspace", "/home", os.homedir(), "/root", "/etc", "/opt", "/srv", "/mnt", "/var/cache", "/var/lib", "/usr/share/nodejs", "/usr/lib/x86_64-linux-gnu/nodejs", "/node_modules", "/workspace/node_modules", "/data"];
let found = [];
const quietly = (f) => { try { return f(); } catch { return undefined; } };
const saw = (where, text) => { if (String(text).includes(MARK)) found.push([where, String(text).slice(0, 200)]); };

function look() {
  found = [];
  for (const d of folders) for (const name of quietly(() => fs.readdirSync(d)) || []) {
    saw("name of " + path.join(d, name), name);
    const at = path.join(d, name), s = quietly(() => fs.lstatSync(at));
    if (s && s.isFile() && s.size < 1 << 16 && (d !== "/etc" || s.mtimeMs > Date.now() - 600000)) saw("file " + at, quietly(() => fs.readFileSync(at, "utf8")));
    if (s && s.isDirectory() && [os.homedir(), "/tmp", "/workspace"].includes(d)) for (const n of quietly(() => fs.readdirSync(at, {recursive: true})) || []) { saw("name below " + at, n); saw("file below " + at, quietly(() => fs.readFileSync(path.join(at, n), "utf8"))); }
  }
  for (const p of fs.readdirSync("/proc").filter((n) => /^\d+$/.test(n))) {
    for (const n of ["cmdline", "comm", "environ"]) saw("process " + n, quietly(() => fs.readFileSync(`/proc/${p}/${n}`)));
    if (p !== "1" && +p !== process.pid) found.push(["a process", quietly(() => fs.readFileSync(`/proc/${p}/cmdline`, "utf8"))]);
  }
  for (const n of ["shm", "sem", "msg"]) if (fs.readFileSync("/proc/sysvipc/" + n, "utf8").trim().split("\n").length > 1) found.push(["sysvipc " + n, "an object"]);
  for (const n of ["unix", "tcp", "tcp6", "udp"]) { const text = quietly(() => fs.readFileSync("/proc/net/" + n, "utf8")) || ""; saw("net " + n, text); if (text.includes(":7A69")) found.push(["port", n]); }
  saw("environment", JSON.stringify(process.env));
  saw("globals", Object.getOwnPropertyNames(globalThis).concat(Object.keys(Object.prototype), Object.getOwnPropertyNames(Array.prototype), Object.keys(process), Object.keys(fs)).join());
  saw("cache", Object.keys(require.cache).concat(Object.keys(require("module")._pathCache)).join());
  saw("descriptors", fs.readdirSync("/proc/self/fd").map((n) => quietly(() => fs.readlinkSync("/proc/self/fd/" + n))).join());
  saw("title", process.title);
  saw("host name", os.hostname());
  if (process.umask() !== 0o022) found.push(["umask", process.umask().toString(8)]);
  if (os.getPriority() !== 0) found.push(["nice", os.getPriority()]);
  if (process.listenerCount("SIGUSR2")) found.push(["signals", "listened to"]);
  if (Error.stackTraceLimit !== 10) found.push(["stack trace limit", Error.stackTraceLimit]);
  return found;
}

const left = [];
const leave = (what, f) => { try { f(); left.push(what); } catch {} };
function leaveMarks() {
  for (const d of folders) { leave("a file in " + d, () => fs.writeFileSync(path.join(d, mine), mine)); leave("a hidden file in " + d, () => fs.writeFileSync(path.join(d, "." + mine), mine)); }
  leave("caches", () => { for (const n of [".cache/node/" + mine, ".npm/" + mine, ".config/" + mine, ".node_modules/helper.js"]) { fs.mkdirSync(path.dirname(path.join(os.homedir(), n)), {recursive: true}); fs.writeFileSync(path.join(os.homedir(), n), `exports.x = "${mine}"`); } });
  leave("history", () => fs.writeFileSync(path.join(os.homedir(), ".node_repl_history"), mine));
  leave("a module", () => { fs.mkdirSync("/workspace/node_modules/" + mine, {recursive: true}); fs.writeFileSync(`/workspace/node_modules/${mine}/index.js`, ""); require(mine); });
  leave("package.json", () => fs.writeFileSync("/workspace/package.json", JSON.stringify({name: mine})));
  leave("links", () => fs.symlinkSync(mine, "/tmp/link" + mine));
  leave("environment", () => { process.env.MARK = mine; });
  leave("globals", () => { globalThis[mine] = 1; Object.prototype[mine] = 1; fs[mine] = 1; process[mine] = 1; });
  leave("title", () => { process.title = mine.slice(0, 15); });
  leave("umask and nice", () => { process.umask(0o077); os.setPriority(5); });
  leave("signals", () => process.on("SIGUSR2", () => {}));
  leave("limit", () => { Error.stackTraceLimit = 3; });
  leave("an open file", () => { fs.openSync("/tmp/open" + mine, "w"); });
  leave("a process", () => require("child_process").spawn("/bin/sleep", ["1000"], {argv0: mine, env: {MARK: mine}, detached: true, stdio: "ignore"}).unref());
  return new Promise((done) => { const s = net.createServer().listen(31337, "0.0.0.0", () => { left.push("a port"); net.createServer().listen("/tmp/s" + mine, done).unref(); }).unref(); });
}

const before = look();
leaveMarks().then(() => {
  let after = []; // until the process that it left has its name
  for (let n = 0; n < 500 && "@AGAIN@" === "true"; n++) { after = look(); if (after.some((f) => f[0] === "process cmdline")) break; Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 5); }
  console.log(JSON.stringify({before, left, seen: [...new Set(after.map((f) => f[0]))].sort()}));
  process.exit(0);
});
