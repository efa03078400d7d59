# Becomes a program that needs no compiling, as what compiles it does. $0: a folder of this exec's own with the program.
shift
exec "$0/main" "$@"
