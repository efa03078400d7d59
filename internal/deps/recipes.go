package deps

import (
	"regexp"
	"strings"

	"outpost.run/outpost/internal/index"
	"outpost.run/outpost/sandbox"
)

// recipe says how one manager's packages are installed. Its scripts are run by a shell in the installation's machine.
type recipe struct {
	manager  index.Manager
	version  int      // raised when what it makes changes
	image    string   // a Debian image with the language
	packages []string // what a Debian image needs beside the language
	at       string   // where it is found, and kept for good; "" for where the description says
	bin      string   // the directory of programs in there
	present  string   // fails where the installer is missing; its words say so
	ask      string   // prints the manager's own index, found in it by address, for Go with its checksum database; run without a way out
	address  *regexp.Regexp
	install  func(index.Upstream) string // takes the dependencies as arguments
	describe string                      // prints the description of what was installed
	tree     string                      // the directory that becomes the layer
	without  string                      // what of it does not
	exactly  *regexp.Regexp              // what can only ever be one version
	spell    func(string) string         // a dependency as the installer takes it; nil for as it is
}

// plan is a recipe for one request.
type plan struct {
	recipe
	upstream index.Upstream
}

func (r recipe) pinned(dep string) bool { return r.exactly.MatchString(dep) }

var recipes = map[string]recipe{"python": python, "node": node, "go": golang, "rust": rust}

func (in *Installer) recipe(r Request) (plan, error) {
	c, ok := recipes[r.Language]
	if !ok {
		return plan{}, sandbox.Errorf(sandbox.NotSupported, nil, "%s programs have no dependencies but Debian packages (apt:NAME)", r.Language)
	}
	for _, d := range r.Deps { // policy has refused them; should it ever not, no installer gets to see an option
		if strings.HasPrefix(d, "-") || strings.ContainsAny(d, " \t\r\n\x00") {
			return plan{}, sandbox.Errorf(sandbox.Invalid, nil, "%q is no dependency", d)
		}
	}
	u, err := in.Host.Upstream(c.manager, in.Indexes[c.manager])
	return plan{c, u}, err
}

const (
	pythonTree = workDir + "/python"
	nodeRoot   = workDir + "/node"
)

// python installs with pip. Bytecode is made apart, so that it needs no file times to be valid.
var python = recipe{
	manager: index.Pip, version: 1, image: "deb:trixie?include=python3", packages: []string{"python3-pip"}, bin: "bin",
	present: `python3 -I -m pip --version >/dev/null`,
	ask:     `COLUMNS=1000 python3 -I -m pip download --help`,
	address: regexp.MustCompile(`--index-url[^()]*\(default ([^ )]+)\)`),
	install: func(u index.Upstream) string {
		options := ""
		for i, address := range u.PipIndexes() {
			options += map[bool]string{true: " --index-url ", false: " --extra-index-url "}[i == 0] + address
		}
		return `export PIP_CONFIG_FILE=/dev/null
python3 -I -m pip install --target ` + pythonTree + ` --no-input --no-cache-dir --disable-pip-version-check --no-compile --progress-bar off \
	--no-warn-script-location --retries 1 --timeout 60` + options + ` -- "$@" || exit 1
python3 -I -m compileall -q -j 0 --invalidation-mode unchecked-hash ` + pythonTree + ` >/dev/null 2>&1 || true # a file that is no Python is the package's affair`
	},
	// Where it goes: the first directory of site packages that the image leaves empty; elsewhere it would hide something.
	describe: `python3 -I - <<'END'
import json, os, site, subprocess, sys
places = site.getsitepackages()
free = [d for d in places if not os.path.isdir(d) or not os.listdir(d)]
env = dict(os.environ, PIP_CONFIG_FILE='/dev/null')
listed = subprocess.run([sys.executable, '-I', '-m', 'pip', 'list', '--path', '` + pythonTree + `', '--format', 'json', '--disable-pip-version-check'], stdout=subprocess.PIPE, env=env, check=True)
at = free[0] if free else '` + pythonTree + `'
print(json.dumps({
    'at': at, 'bin': os.path.isdir('` + pythonTree + `/bin'), 'home': places[0],
    'resolved': sorted(p['name'] + '==' + p['version'] for p in json.loads(listed.stdout)),
}))
END`,
	tree: pythonTree, exactly: regexp.MustCompile(`^[^=<>!~]+={2,3}[^*,]+$`),
}

// node installs with npm, whose folder both require and import find from anywhere below the root.
var node = recipe{
	manager: index.Npm, version: 1, image: "deb:trixie?include=nodejs", packages: []string{"npm"}, at: "/node_modules", bin: ".bin",
	present: `npm --version >/dev/null`,
	ask:     `npm config get registry --userconfig /dev/null --globalconfig ` + workDir + `/none`,
	address: regexp.MustCompile(`(https?://\S+)`),
	install: func(index.Upstream) string {
		return `npm install --prefix ` + nodeRoot + ` --registry ` + index.NpmRegistry + ` --userconfig /dev/null --globalconfig ` + workDir + `/none \
	--cache ` + workDir + `/cache --no-audit --no-fund --no-update-notifier --no-save --omit-lockfile-registry-resolved --loglevel error --logs-max 0 \
	--fetch-retries 1 --no-progress --no-color -- "$@"`
	},
	describe: `exec node -e '
const root = "` + nodeRoot + `/node_modules", fs = require("fs");
const lock = JSON.parse(fs.readFileSync(root + "/.package-lock.json"));
const named = Object.entries(lock.packages).filter(([p]) => p.startsWith("node_modules/"))
	.map(([p, v]) => (v.name || p.slice(p.lastIndexOf("node_modules/") + 13)) + "@" + v.version);
console.log(JSON.stringify({bin: fs.existsSync(root + "/.bin"), resolved: [...new Set(named)].sort()}))'`,
	tree: nodeRoot + "/node_modules", without: ".package-lock.json",
	exactly: regexp.MustCompile(`^.[^@]*@=?v?\d+\.\d+\.\d+(?:[-+][0-9A-Za-z.+-]+)?$`),
}
