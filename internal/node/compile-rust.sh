# Compiles a Rust program and becomes it. $1: a folder of this exec's own; $2: the program's file; then its arguments.
s=$1 f=$2
shift 2
TMPDIR="$s" rustc --edition 2021 --crate-name main -o "$s/main" "$f" </dev/null >"$s/said" 2>&1 || {
	code=$?
	cat "$s/said" >&2
	exit $code
}
exec "$s/main" "$@"
