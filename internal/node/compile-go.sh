# Compiles a Go program and becomes it. $0: a folder of this exec's own; $1: the program's file; then its arguments.
# The program's file alone, against the standard library that the image has compiled, takes half of what `go build` takes.
# Whatever is more than that, or fails, is go build's.

# alone: no file but the program's own says what it is made of.
alone() {
	[ ! -e "$settings" ] || return
	[ -z "$GOFLAGS$GOWORK" ] || return
	d=$PWD
	while :; do
		[ ! -e "$d/go.mod" ] && [ ! -e "$d/go.work" ] || return
		[ "$d" ] || break
		d=${d%/*}
	done
}

plain() {
	[ ! -e $deps/go.work ] || return
	alone || return
	[ -f $std/importcfg ] && [ "$(command -v go)" = /usr/bin/go ] || return
	[ -z "$GOROOT$GOOS$GOARCH$GOAMD64$GOARM64$GOEXPERIMENT$GOTOOLCHAIN$GOCACHE$CGO_ENABLED" ] || return
	! grep -q -e '^//go:debug' -e '"runtime/debug"' "$f" || return # both need what go build notes in the program
	/usr/lib/go/pkg/tool/*/compile -p main -complete -nolocalimports -importcfg $std/importcfg -pack -o "$s/main.a" "$f" &&
		GOROOT=/usr/lib/go /usr/lib/go/pkg/tool/*/link -importcfg $std/importcfg -o "$s/main" "$s/main.a"
}

whole() {
	if [ -e $deps/go.work ]; then
		std=$deps/build
		export GOWORK=$deps/go.work GOMODCACHE=$deps/modules GOPROXY=off GOSUMDB=off GOTOOLCHAIN=local
	elif ! alone; then
		rm -f "$s/taken" # it may come from the network: it is compiled again each time
	fi
	if [ -z "$GOCACHE" ]; then # it must be one that go can write to
		mkdir "$s/cache"
		if [ -d $std ]; then
			ln -s $std/?? "$s/cache"
			date +%s >"$s/cache/trim.txt"
			export GOCACHE="$s/cache"
		elif ! mkdir -p "$HOME/.cache/go-build" 2>/dev/null; then
			export GOCACHE="$s/cache"
		fi
	fi
	GOTMPDIR="$s" GOENV="$settings" go build -buildvcs=false -o "$s/main" "$f"
}

( # the program's environment has no variable of these
	s=$0 f=$1
	std=/var/cache/go-build
	deps=/opt/deps/go # where internal/deps puts modules, with all that is compiled
	settings=${GOENV:-${XDG_CONFIG_HOME:-$HOME/.config}/go/env} # of go env -w
	# What the tools would note in the home, their telemetry, goes with the exec.
	mkdir -p "$s/go/telemetry"
	echo off >"$s/go/telemetry/mode"
	export XDG_CONFIG_HOME="$s"
	plain >/dev/null 2>&1 || whole || exit
	# The agent takes the program meanwhile (see agent/guest). No gate that it waits at may stay there for the program.
	[ ! -p "$s/taken" ] || read -r line <"$s/taken" || rm "$s/taken" || exit
) </dev/null >"$0/said" 2>&1 || {
	code=$?
	cat "$0/said" >&2
	exit $code
}
shift
exec "$0/main" "$@"
