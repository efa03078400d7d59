set -euo pipefail
printf '%s\n' pear apple fig apple pear apple >fruit
top="$(sort fruit | uniq -c | sort -rn | head -n1 | tr -s ' ')"
[ "$top" = " 3 apple" ]
