package deps

import (
	"regexp"
	"strings"

	"outpost.run/outpost/internal/index"
)

// Where compiled languages find their dependencies; how their code is run (internal/node) looks for it. Compilers note
// paths in what they make: it is made where it is used.
const (
	GoTree   = workDir + "/go"
	RustTree = workDir + "/rust"

	GoWork    = GoTree + "/go.work"
	GoModules = GoTree + "/modules"
	GoCache   = GoTree + "/build"
	RustFlags = RustTree + "/flags" // a file of rustc's arguments
)

// golang fetches modules and compiles their packages. The cache of what is compiled holds the image's own, which has the
// standard library, as links. A package that does not compile here is no failure: the program may need another.
var golang = recipe{
	manager: index.Go, version: 1, image: "deb:trixie?include=golang-go", at: GoTree,
	present: `go version >/dev/null`,
	ask:     `go env GOPROXY GOSUMDB`,
	address: regexp.MustCompile(`^(\S+)\n(\S*)`),
	install: func(index.Upstream) string {
		return `export GOPROXY=` + index.GoProxy + ` GOTOOLCHAIN=local GOFLAGS=-modcacherw GOMODCACHE=` + GoModules + ` GOPATH=` + workDir + `/gopath GOCACHE=` + GoCache + ` GOENV=off
mkdir -p ` + GoTree + `/main ` + GoCache + ` && cd ` + GoTree + `/main || exit
for d in /var/cache/go-build/??; do # see internal/image
	[ -d "$d" ] && mkdir -p "$GOCACHE/${d##*/}" && find "$d" -type f -exec ln -sf -t "$GOCACHE/${d##*/}" {} +
done
go mod init main 2>/dev/null && go get -- "$@" || exit
for d; do
	v=${d#"${d%%@*}"}
	go get -- "${d%%@*}/...$v" >/dev/null 2>&1
done
cd .. && go work init ./main || exit
export GOPROXY=off
for d; do
	go build -buildvcs=false -- "${d%%@*}/..." >/dev/null 2>&1
done
rm -rf "$GOMODCACHE/cache/download/sumdb" "$GOMODCACHE/cache/vcs" "$GOMODCACHE/cache/lock" "$GOCACHE"/*.txt "$GOCACHE/README"
find "$GOMODCACHE/cache" -name '*.zip' -delete`
	},
	describe: `cd ` + GoTree + `/main && export GOFLAGS=-mod=readonly GOPROXY=off GOMODCACHE=` + GoModules + ` GOENV=off && go mod edit -json | tr -d '\n\t' | sed 's/.*"Require": *\[\([^]]*\)\].*/\1/' |
	tr '{' '\n' | sed -n 's/.*"Path": *"\([^"]*\)", *"Version": *"\([^"]*\)".*/"\1@\2"/p' | sort | paste -sd, |
	{ read -r all; echo "{\"resolved\": [$all]}"; }`,
	tree: GoTree, exactly: regexp.MustCompile(`@v\d+\.\d+\.\d+(?:[-+].*)?$`),
}

// rust compiles crates once, so that a program's compiler finds them done. A whole version is meant exactly.
var rust = recipe{
	manager: index.Cargo, version: 1, image: "deb:trixie?include=rustc", packages: []string{"cargo"}, at: RustTree,
	present: `cargo --version >/dev/null`,
	ask: `export CARGO_HOME="$TMPDIR/home" CARGO_NET_RETRY=0; mkdir -p "$TMPDIR/ask" && cd "$TMPDIR/ask" && touch lib.rs &&
printf '[package]\nname = "ask"\nversion = "0.0.0"\n[lib]\npath = "lib.rs"\n[dependencies]\nitoa = "1"\n' >Cargo.toml && cargo generate-lockfile 2>&1 || true`,
	address: regexp.MustCompile(`(https?://[^\s` + "`" + `'"]+/)config\.json`),
	install: func(index.Upstream) string {
		return `export CARGO_HOME=` + workDir + `/cargo CARGO_NET_RETRY=1 CARGO_TERM_PROGRESS_WHEN=never CARGO_INCREMENTAL=0 CARGO_PROFILE_DEV_DEBUG=0
mkdir -p "$CARGO_HOME" ` + RustTree + ` && cd ` + RustTree + ` || exit
printf '[source.crates-io]\nreplace-with = "index"\n[source.index]\nregistry = "` + index.CargoIndex + `"\n' >"$CARGO_HOME/config.toml"
printf '[package]\nname = "main"\nversion = "0.0.0"\nedition = "2021"\n[[bin]]\nname = "main"\npath = "main.rs"\n' >Cargo.toml
echo 'fn main() {}' >main.rs
for d; do
	f=
	case "$d" in */*) f=${d#*/} ;; esac
	cargo add --quiet ${f:+--features "$f"} -- "${d%%/*}" || exit
done
cargo build --verbose >said 2>&1 || { cat said; exit 1; }
line=$(grep 'Running .*rustc --crate-name main ' said | tail -n 1)
set -f; key=
for word in $line; do
	case "$key" in
	--extern) printf '%s\n%s\n' --extern "$(echo "$word" | sed 's/\.rmeta$/.rlib/')" ;;
	-L) printf '%s\n%s\n' -L "$word" ;;
	esac
	key=$word
done | tr -d '\140' >flags
rm -rf said main.rs target/debug/main target/debug/incremental target/debug/.fingerprint target/debug/deps/*.d target/debug/deps/main-*
set +f; rm -f target/debug/deps/*.rmeta target/debug/deps/*.d target/debug/deps/main-*`
	},
	describe: `cd ` + RustTree + ` && sed -n '/^name = /{s/^name = "\(.*\)"$/\1/;h};/^version = /{s/^version = "\(.*\)"$/\1/;H;x;s/\n/@/;p}' Cargo.lock |
	grep '^[A-Za-z0-9_-]*@[0-9A-Za-z.+-]*$' | grep -vx 'main@0.0.0' | sort -u | sed 's/.*/"&"/' | paste -sd, |
	{ read -r all; echo "{\"resolved\": [$all]}"; }`,
	tree: RustTree, exactly: regexp.MustCompile(`@=?\d+\.\d+\.\d+(?:[-+].*)?$`),
	spell: func(d string) string {
		name, version, _ := strings.Cut(d, "@")
		name, features, _ := strings.Cut(name, "/")
		if whole.MatchString(version) {
			version = "=" + version
		}
		if version != "" {
			name += "@" + version
		}
		if features != "" {
			name += "/" + strings.ReplaceAll(features, "/", ",")
		}
		return name
	},
}

var whole = regexp.MustCompile(`^\d+\.\d+\.\d+(?:[-+].*)?$`)
