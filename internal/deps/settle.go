package deps

import "outpost.run/outpost/internal/index"

// What a manager's packages replace in a directory that has others already: $1 is where the layer lies, $2 its home.
const (
	// The description of another version of the same package; directories may be many packages' in common.
	replacePip = `for d in "$1"/*.dist-info; do
	[ -d "$d" ] || continue
	name=${d##*/}
	for old in "$2/${name%%-*}"-*.dist-info; do [ ! -d "$old" ] || rm -rf "$old"; done
done
`
	// Whole packages.
	replaceNpm = `for d in "$1"/* "$1"/@*/*; do
	case "${d#"$1"/}" in @*/*) ;; @*) continue ;; esac
	[ ! -d "$d" ] || rm -rf "$2/${d#"$1"/}"
done
`
	copyAll = `cp -R --preserve=mode,timestamps,links "$1"/. "$2"/ || exit
[ -z "$3" ] || [ ! -d "$2/$3" ] || { mkdir -p /usr/local/bin && ln -sf "$2/$3"/* /usr/local/bin/; }
`
)

// Settle are the words that copy the layer, which lies at a path, to its home, where they replace other versions.
func (s Set) Settle(at string) []string {
	replace := map[index.Manager]string{index.Pip: replacePip, index.Npm: replaceNpm}[s.Manager]
	return []string{"/bin/sh", "-c", "umask 022; mkdir -p \"$2\" || exit\n" + replace + copyAll, "sh", at, s.Home, s.Bin}
}
