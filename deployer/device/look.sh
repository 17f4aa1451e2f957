# Looks at a device and changes nothing. Prints lines KEY=VALUE.
# $1: the folder of charedge, absolute or in the home folder; $2: file name of the model; $3: user or system, where its service is wanted, or nothing

show() {
    printf '%s=%s\n' "$1" "$(printf '%s' "$2" | tr -d '\n')"
}

case $1 in
/*) prefix=$1 ;;
'~'/*) prefix=$HOME/${1#??} ;;
*) prefix=$HOME/$1 ;;
esac
model=$prefix/models/$2

show system "$(uname -s)"
show machine "$(uname -m)"
show package_architecture "$(dpkg --print-architecture 2>/dev/null)"
show word_bits "$(getconf LONG_BIT 2>/dev/null)"
libc=$(getconf GNU_LIBC_VERSION 2>/dev/null) || libc=$(ldd --version 2>&1 | head -n 1)
show libc "$libc"
show user "$(id -un)"
show prefix "$prefix"
show memory_kib "$(sed -n 's/^MemTotal: *\([0-9]*\) kB/\1/p' /proc/meminfo 2>/dev/null)"

folder=$prefix
while [ ! -d "$folder" ] && [ "$folder" != / ]; do
    folder=$(dirname "$folder")
done
show free_kib "$(df -Pk "$folder" 2>/dev/null | awk 'NR == 2 { print $4 }')"
if [ -w "$folder" ]; then show writable 1; else show writable 0; fi

# Every Python of the PATH: path, version, bits, whether it has venv and ensurepip, the version of numpy
probe='
import struct, sys
from importlib.util import find_spec
try:
    from importlib.metadata import version
    numpy = version("numpy")
except Exception:
    numpy = "-"
found = ["%d.%d" % sys.version_info[:2], struct.calcsize("P") * 8, *(int(find_spec(name) is not None) for name in ("venv", "ensurepip"))]
print(*found, numpy)
'
seen=:
for name in python3 python3.14 python3.13 python3.12 python3.11 python3.10; do
    path=$(command -v $name) || continue
    real=$(readlink -f "$path")
    case $seen in *:"$real":*) continue ;; esac
    seen=$seen$real:
    found=$("$path" -c "$probe" </dev/null 2>/dev/null) || continue
    show python "$found $path"
done

# What was deployed before
if [ -f "$prefix/venv/complete" ] && "$prefix/venv/bin/python" -c pass 2>/dev/null; then
    show venv "$(basename "$(readlink "$prefix/venv")")"
    while IFS='=' read -r key value; do
        show "venv_$key" "$value"
    done <"$prefix/venv/complete"
fi
show model_sha256 "$(sha256 "$model")"
show previous_sha256 "$(sha256 "${model%.tflite}.previous.tflite")"
show signature_sha256 "$(sha256 "$model.sig")"
[ ! -f "$model.old" ] || show unfinished 1
[ ! -f "$model.json" ] || show measured "$(head -c 20000 "$model.json")"
show holder "$(cat "$prefix/lock/holder" 2>/dev/null)"

# Services of this model, and whether one can be made
[ -n "${XDG_RUNTIME_DIR:-}" ] || export XDG_RUNTIME_DIR="/run/user/$(id -u)"
for kind in serve ticker; do
    for scope in user system; do
        if [ $scope = user ]; then
            unit=${XDG_CONFIG_HOME:-$HOME/.config}/systemd/user/charedge-$kind.service as=--user
        else
            unit=/etc/systemd/system/charedge-$kind.service as=--system
        fi
        grep -qxF "# Written by charedge deploy, for $2" "$unit" 2>/dev/null || continue
        active=$(systemctl $as is-active "charedge-$kind.service" 2>/dev/null)
        port=$(sed -n 's/^ExecStart=.* --port \([0-9]*\)$/\1/p' "$unit")
        show service "$kind $scope $(sha256 "$unit") ${active:-unknown} $port"
    done
done
case $3 in
user)
    why=$(systemctl --user show-environment 2>&1 >/dev/null) && why=yes
    show systemd "$why"
    ;;
system)
    if ! command -v systemctl >/dev/null; then
        why='there is no systemctl'
    elif [ "$(id -u)" = 0 ]; then
        why=yes
    else
        why=$(sudo -n true 2>&1) && why=yes
    fi
    show systemd "$why"
    ;;
esac
