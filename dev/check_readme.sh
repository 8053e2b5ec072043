#!/bin/sh
# check_readme.sh: the lines of code that README.md quotes in its table of equations stand in the file it names.
cd "$(dirname "$0")/.." || exit 1
bad=0
grep -E '^\|.*`.*`.*\|.*(\.h|\.c) \|$' README.md | while IFS= read -r row; do
    file=$(printf '%s\n' "$row" | sed -E 's/.* ([a-z0-9_\/]+\.[ch]) \|$/\1/')
    printf '%s\n' "$row" | grep -oE '`[^`]*;`' | tr -d '`' | while IFS= read -r code; do
        grep -qF -- "$code" "$file" || { echo "README.md quotes a line that $file does not have: $code"; exit 1; }
    done || exit 1
done || bad=1
[ $bad = 0 ] && echo "README.md: every quoted line of code is where it says"
exit $bad
