# Prints the SHA-256 and the name of each wheel that was carried before. $1: the folder; $2: the lock's holder
hold "$1" "$2"
for wheel in "$1"/wheels/*.whl; do
    [ ! -f "$wheel" ] || printf '%s %s\n' "$(sha256 "$wheel")" "$(basename "$wheel")"
done
