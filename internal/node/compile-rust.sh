# Compiles a Rust program and becomes it. $1: a folder of this exec's own; $2: the program's file; then its arguments.
s=$1 f=$2
shift 2
deps=/opt/deps/rust/flags # what internal/deps says of compiled crates
[ -e $deps ] && deps=@$deps || deps=
TMPDIR="$s" rustc $deps --edition 2021 --crate-name main -o "$s/main" "$f" </dev/null >"$s/said" 2>&1 || {
	code=$?
	cat "$s/said" >&2
	exit $code
}
exec "$s/main" "$@"
