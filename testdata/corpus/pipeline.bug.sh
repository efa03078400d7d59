set -euo pipefail
printf '%s\n' pear apple fig >fruit
grep -q banana fruit | cat
