# Writes stdin to a file, which has its name only when all of it is there and on the disk.
# $1: the folder; $2: the lock's holder; $3: the file, in the folder; $4: its number of bytes; $5: its SHA-256
hold "$1" "$2"
part=$1/$3.part
trap 'rm -f "$part"' EXIT
why=$(mkdir -p "$(dirname "$part")" 2>&1 && cat 2>&1 >"$part") || fail "$part cannot be written (${why##*: }): free some space there, then deploy again"
[ "$(wc -c <"$part")" -eq "$4" ] && [ "$(sha256 "$part")" = "$5" ] || fail "$part is not what was sent: deploy again"
flush "$part"
mv -f "$part" "$1/$3" || fail "$1/$3 cannot be written: free some space there, then deploy again"
