# Compiles a Rust program and becomes it. $0: a folder of this exec's own; $1: the program's file; then its arguments.
( # the program's environment has no variable of these
	deps=/opt/deps/rust/flags # what internal/deps says of compiled crates
	[ -e $deps ] && deps=@$deps || deps=
	TMPDIR="$0" rustc $deps --edition 2021 --crate-name main -o "$0/main" "$1" || exit
	# The agent takes the program meanwhile (see agent/guest). No gate that it waits at may stay there for the program.
	[ ! -p "$0/taken" ] || read -r line <"$0/taken" || rm "$0/taken" || exit
) </dev/null >"$0/said" 2>&1 || {
	code=$?
	cat "$0/said" >&2
	exit $code
}
shift
exec "$0/main" "$@"
