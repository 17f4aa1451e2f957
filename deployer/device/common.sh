# In front of every script: messages, and the lock that all scripts but look.sh hold.
export LC_ALL=C PYTHONNOUSERSITE=1 PIP_DISABLE_PIP_VERSION_CHECK=1
cd / # Python would import the user's files from the current folder

# Ends the script with a sentence: fail SENTENCE [STATUS]
fail() {
    printf '%s\n' "$1" >&2
    exit "${2:-1}"
}

# The process number and the start time of a process, which together are never used again: stamp PID
stamp() {
    printf '%s ' "$1"
    cut -d ' ' -f 22 "/proc/$1/stat" 2>/dev/null || echo gone
}

# Checks that the lock of a folder is ours still, and says that a script is at work: hold PREFIX HOLDER
hold() {
    [ "$(cat "$1/lock/holder" 2>/dev/null)" = "$2" ] || fail "another deployment has taken over $1: wait for it, then deploy again"
    stamp $$ >"$1/lock/process"
    touch "$1/lock"
}

# The first 64 characters of what sha256sum prints; nothing for a file that is not there: sha256 FILE
sha256() {
    [ ! -f "$1" ] || sha256sum <"$1" | cut -c 1-64
}

# Writes what was written to the disk, so that a power cut after a rename does not bring half a file.
flush() {
    sync "$@" 2>/dev/null || sync
}
