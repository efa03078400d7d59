package e2e_test

import (
	_ "embed"
	"strings"

	"outpost.run/outpost/sandbox"
)

//go:embed testdata/differential/facts.js
var nodeFacts string

func nodeCases() (all []likeness) {
	long := strings.Repeat("var y = 'filler filler'; //\n", 50_000) // 1.4 MB
	for name, code := range map[string]string{
		"empty":                           "",
		"one line":                        "console.log(1)",
		"its own source":                  "process.stdout.write(require('fs').readFileSync(__filename)) // ü €\U0001F600 \\ end",
		"an exit code":                    "process.exit(3)",
		"an exit code that is set":        "process.exitCode = 4",
		"an exit handler":                 "process.on('exit', (c) => { console.log('exit', c); process.exitCode = 9 })",
		"an uncaught error":               "function f() {\n  throw new TypeError('boom')\n}\nf()",
		"an error with a cause":           "throw new Error('outer', {cause: new Error('inner')})",
		"something thrown that is none":   "throw {a: 1}",
		"a rejection nobody handles":      "Promise.reject(new Error('late'))",
		"a rejection of nothing":          "Promise.reject()",
		"a handled one":                   "process.on('unhandledRejection', (e) => console.log('seen', e.message)); Promise.reject(new Error('late'))",
		"an uncaught error that is seen":  "process.on('uncaughtException', (e, o) => console.log(o, e.stack)); setTimeout(() => undefinedName, 1)",
		"an error in a timer":             "setTimeout(() => { null.x }, 1)",
		"a warning":                       "process.emitWarning('look', 'Kind', 'C1'); new Buffer(1)",
		"an assertion":                    "require('assert').strictEqual(1, 2)",
		"a recursion without end":         "function f() { f() }\nf()",
		"SIGTERM to itself":               "console.log('x'); process.kill(process.pid, 'SIGTERM'); setTimeout(() => {}, 60000)",
		"a signal that is handled":        "process.on('SIGUSR2', () => { console.log('seen'); process.exit(2) }); process.kill(process.pid, 'SIGUSR2'); setTimeout(() => {}, 60000)",
		"an abort":                        "process.kill(process.pid, 'SIGABRT'); setTimeout(() => {}, 60000)",
		"no JavaScript":                   "function (",
		"an open string":                  "const x = 'abc\nconst y = 1",
		"an open template":                "const x = `abc\n${1}\n",
		"an open comment":                 "/* abc\nconsole.log(1)",
		"a reserved word":                 "let class = 1",
		"a name twice":                    "let a = 1\nlet a = 2",
		"a regular expression in error":   "/(/.test('')",
		"await in a function":             "function f() { await 1 }",
		"return at the top":               "console.log(1)\nreturn\nconsole.log(2)",
		"a fault in strict code":          "'use strict'\nwith ({}) {}",
		"strict or not":                   "console.log((function () { return this === undefined })())",
		"strict":                          "'use strict'; x = 1",
		"a shebang":                       "#!/usr/bin/env node\nconsole.log(__filename)\nthrow new Error('line 3')",
		"a byte order mark":               "\ufeffconsole.log(1); throw 1",
		"lines that end with CR LF":       "console.log(1)\r\nconsole.log(`a\r\nb`.length)\r\nundefinedName\r\n",
		"line separators":                 "console.log('a\u2028b'.length)\u2028undefinedName",
		"names that are not ASCII":        "const größe = 1, 変数 = 2; console.log(größe + 変数, '😀'.length); undefinedÄ",
		"a source map":                    "console.log(1)\n//# sourceMappingURL=main.js.map\nthrow new Error('x')",
		"a very long line":                "const a = '" + strings.Repeat("a", 200_000) + "'; console.log(a.length)",
		"a very long line with a fault":   "const a = '" + strings.Repeat("a", 50_000) + "' b", // node drops what a full pipe has no room for: how much hangs on who reads
		"much":                            long + "console.log(y, require('fs').statSync(__filename).size)",
		"much, with a fault at the end":   long + "x y",
		"much, with a fault at the start": "x y\n" + long + long,
		"much, that throws at the end":    long + "throw new Error('end')",
		"64 KiB exactly":                  "console.log(1)//" + strings.Repeat("#", 65536-16),
		"64 KiB and one":                  "console.log(1)//" + strings.Repeat("#", 65536-15),
		"8192 bytes":                      "console.log(1)//" + strings.Repeat("#", 8192-16),
		"brackets deep":                   "console.log(" + strings.Repeat("(", 500) + "1" + strings.Repeat(")", 500) + ")",
		"a module by its import":          "import fs from 'node:fs'\nimport {basename} from 'path'\nconsole.log(typeof fs.readFileSync, basename(import.meta.url), import.meta.filename, import.meta.dirname, typeof require, typeof __filename, this)",
		"a module by its export":          "export const x = 1\nconsole.log(import.meta.url)",
		"a module that awaits":            "import 'fs'\nconsole.log(await Promise.resolve(1))\nthrow new Error('in a module')",
		"await at the top alone":          "console.log(await Promise.resolve(1))",
		"a module with a fault":           "import fs from 'fs'\nconst x = = 1",
		"a module without its import":     "import x from './missing.js'",
		"a module without its name":       "import {nothing} from 'fs'",
		"a module with a package missing": "import x from 'missing'",
		"a module that never ends":        "import 'fs'\nawait new Promise(() => {})",
		"import in a script":              "import('fs').then((m) => console.log(Object.keys(m).length > 50, require('module').isBuiltin('fs')))",
		"itself imported":                 "if (!globalThis.again) { globalThis.again = true; import('./main.js').then((m) => console.log('imported', Object.keys(m), require.main === module)) } else console.log('again')",
		"itself required":                 "exports.x = 1; console.log(require('./main').x, require(__filename) === module.exports, Object.keys(require.cache), module.loaded)",
		"itself required anew":            "if (!globalThis.again) { globalThis.again = true; delete require.cache[__filename]; console.log(require('./main.js').v) } else exports.v = [module.parent.id, require.main === module]",
		"a missing module":                "require('./missing')",
		"its stack":                       "console.log(new Error('x').stack); console.trace('here')",
		"its call sites":                  "Error.prepareStackTrace = (e, s) => s.map((c) => [c.getFileName(), c.getLineNumber(), c.getFunctionName()].join()).join('\\n'); console.log(new Error().stack)",
		"itself forked":                   "if (process.send) { process.send({argv: process.argv.slice(1), fds: 'x'}); process.disconnect() } else require('child_process').fork(__filename, ['child']).on('message', (m) => console.log(m)).on('exit', (...a) => console.log('exit', a))",
		"itself run by a shell":           "if (process.argv[2]) console.log(process.argv, process.execArgv); else console.log(require('child_process').execFileSync(process.execPath, ['--no-warnings', __filename, 'x'], {encoding: 'utf8'}))",
		"a child's output":                "const c = require('child_process'); console.log(c.execSync('cat', {input: 'in', encoding: 'utf8'})); c.spawn('sh', ['-c', 'echo out; exit 3'], {stdio: 'inherit'}).on('exit', (n) => console.log(n))",
		"a worker":                        "const {Worker, isMainThread, workerData, threadId} = require('worker_threads'); if (isMainThread) new Worker(__filename, {workerData: 5}).on('exit', (c) => console.log('exit', c)); else console.log(workerData, threadId, process.argv.slice(1))",
		"a worker that fails":             "const w = require('worker_threads'); if (w.isMainThread) new w.Worker(__filename).on('error', (e) => console.log(e.message, e.stack)); else null.x",
		"a cluster":                       "const c = require('cluster'); if (c.isPrimary) c.fork().on('exit', (n) => console.log('exit', n)); else process.exit(5)",
		"a virtual machine":               "const vm = require('vm'); console.log(vm.runInNewContext('a + 1', {a: 1})); vm.runInThisContext('null.x', 'other.js')",
		"its folder":                      "const fs = require('fs'), s = fs.lstatSync(__filename); console.log(fs.readdirSync('.'), s.isFile(), s.isFIFO(), s.mode.toString(8), s.nlink, s.size)",
		"its file watched":                "const fs = require('fs'); const w = fs.watch('.', (e, n) => { console.log('seen', e, n) }); setTimeout(() => w.close(), 200)",
		"its file removed":                "require('fs').unlinkSync(__filename); console.log(require('fs').readdirSync('.')); throw new Error('gone')",
		"its file changed":                "require('fs').writeFileSync(__filename, 'x = 1\\n'.repeat(9)); undefinedName",
		"the length of a timer":           "const s = process.hrtime.bigint(); setTimeout(() => { const ms = Number(process.hrtime.bigint() - s) / 1e6; console.log(ms >= 199 && ms < 20000) }, 200)",
		"an interval":                     "let n = 0, s = performance.now(); const i = setInterval(() => { if (++n === 4) { clearInterval(i); console.log(n, performance.now() - s > 150) } }, 50)",
		"the order of what is due":        "const o = []; setTimeout(() => o.push('t1'), 1); setTimeout(() => o.push('t100'), 100); setTimeout(() => o.push('t50'), 50); process.nextTick(() => o.push('n')); Promise.resolve().then(() => o.push('p')); process.on('exit', () => console.log(o.join()))",
		"a date":                          "const d = Date.now(); console.log(Math.abs(performance.timeOrigin + performance.now() - d) < 1000, new Date(0).toString(), new Date(0).getTimezoneOffset())",
		"a server of its own":             "const h = require('http'); const s = h.createServer((q, r) => r.end('hello')).listen(0, '127.0.0.1', () => h.get({port: s.address().port}, (r) => r.on('data', (b) => { console.log(String(b)); s.close() }).resume()).end())",
		"a report":                        "const r = process.report.getReport(); console.log(r.header.commandLine, r.libuv.map((h) => h.type), r.sharedObjects)",
		"WebAssembly":                     "const m = new WebAssembly.Module(new Uint8Array([0, 97, 115, 109, 1, 0, 0, 0])); console.log(WebAssembly.Module.exports(m))",
		"an inspector that is opened":     "const i = require('inspector'); const s = new i.Session(); s.connect(); s.post('Runtime.evaluate', {expression: '1 + 1'}, (e, r) => { console.log(e, r.result.value); s.disconnect() })",
		"output over a pipe":              "process.stdout.write('x'.repeat(3 << 20), () => console.error('written'))",
	} {
		all = append(all, likeness{name: name, language: "node", code: code, create: patient(), masks: []mask{nodePid}})
	}
	in := func(stdin string) sandbox.ExecRequest { return sandbox.ExecRequest{Stdin: &stdin} }
	for _, c := range []likeness{
		{name: "all facts", code: nodeFacts, exec: in("input")},
		{name: "input", code: "console.log(require('fs').readFileSync(0, 'utf8'))", exec: in("ä\nb")},
		{name: "input as a stream", code: "let n = 0; process.stdin.on('data', (b) => n += b.length).on('end', () => console.log(n))", exec: in(strings.Repeat("0123456789abcdef", 1<<16))},
		{name: "input by lines", code: "require('readline').createInterface({input: process.stdin}).on('line', (l) => console.log([l])).on('close', () => console.log('end'))", exec: in("a\nb\r\nc")},
		{name: "input that is not read", code: "console.log('x')", exec: in(strings.Repeat("line\n", 50_000))},
		{name: "modules beside it", code: "console.log(require('./sibling'), require('./lib'), require('pack'), require('./data.json'), module.children.length, Object.keys(require.cache))",
			exec: sandbox.ExecRequest{Files: map[string]sandbox.FileContent{"sibling.js": sandbox.FileContent("module.exports = 'sibling'"), "lib/index.js": sandbox.FileContent("exports.at = __filename; exports.by = module.parent.filename"),
				"node_modules/pack/index.js": sandbox.FileContent("module.exports = [module.paths, __dirname]"), "data.json": sandbox.FileContent(`{"a": 1}`)}}},
		{name: "a module beside it by import", code: "import {x} from './m.mjs'\nimport y from './c.cjs'\nconsole.log(x, y)",
			exec: sandbox.ExecRequest{Files: map[string]sandbox.FileContent{"m.mjs": sandbox.FileContent("export const x = import.meta.url"), "c.cjs": sandbox.FileContent("module.exports = __filename")}}},
		{name: "files that node takes for a program", code: "console.log('the right one')",
			exec: sandbox.ExecRequest{Files: map[string]sandbox.FileContent{"main.js.js": sandbox.FileContent("1"), "main.json": sandbox.FileContent("{}"), "main": sandbox.FileContent("1"), "index.js": sandbox.FileContent("1"), "main.mjs": sandbox.FileContent("1"), "node.config.json": sandbox.FileContent(`{"nodeOptions": {"trace-warnings": true}}`)}}},
		{name: "a broken module beside it", code: "require('./sibling')", exec: sandbox.ExecRequest{Files: map[string]sandbox.FileContent{"sibling.js": sandbox.FileContent("x y")}}},
		{name: "the deadline", code: "console.log('so far'); for (;;);", exec: sandbox.ExecRequest{ResourceLimits: &sandbox.LimitsRequest{TimeoutMS: new(3000)}}},
		{name: "the memory limit", code: "console.log('so far'); const a = []; for (;;) a.push(Buffer.alloc(1 << 20, 1))", create: memory(128)},
		{name: "V8's own limit", code: "console.log(require('v8').getHeapStatistics().heap_size_limit)", create: memory(300)},
		{name: "the least memory", code: "console.log('x')", create: memory(16), starts: either},
		{name: "few processes", code: "console.log('x')", create: sandbox.CreateRequest{ResourceLimits: &sandbox.LimitsRequest{Pids: new(4), TimeoutMS: new(2000)}}, starts: either},
	} {
		c.language = "node"
		all = append(all, c)
	}
	return all
}
