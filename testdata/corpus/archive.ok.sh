set -eu
mkdir -p tree/deep
echo content >tree/deep/file
ln -s deep/file tree/link
tar cf tree.tar tree
rm -r tree
tar xf tree.tar
[ "$(cat tree/link)" = content ]
[ "$(find tree -type f | wc -l)" -eq 1 ]
