# Releases the lock. $1: the folder; $2: who holds it
[ "$(cat "$1/lock/holder" 2>/dev/null)" != "$2" ] || rm -rf "$1/lock"
