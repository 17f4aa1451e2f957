# The systemd service of a model. The script behind this one sets `kind` (serve or ticker, or nothing), `scope` (user or system),
# `unit` (its file name), `health` (an address that answers or a file that is written when the service works, or nothing if running is
# enough), `python` and `folder`.

# systemctl, of the user or of the system
control() {
    if [ "$scope" = user ]; then
        XDG_RUNTIME_DIR=${XDG_RUNTIME_DIR:-/run/user/$(id -u)} systemctl --user "$@"
    else
        as_root systemctl "$@"
    fi
}

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}

unit_place() {
    if [ "$scope" = user ]; then
        printf '%s' "${XDG_CONFIG_HOME:-$HOME/.config}/systemd/user/$unit"
    else
        printf '%s' "/etc/systemd/system/$unit"
    fi
}

# write_unit TEXT; an empty text removes the unit
write_unit() {
    place=$(unit_place)
    if [ "$scope" = user ]; then as=''; else as=as_root; fi
    $as mkdir -p "$(dirname "$place")"
    if [ -n "$1" ]; then
        printf '%s\n' "$1" | $as tee "$place.part" >/dev/null && $as chmod 644 "$place.part" && $as mv -f "$place.part" "$place"
    else
        control disable --now "$unit" >/dev/null 2>&1
        $as rm -f "$place"
        control daemon-reload
    fi
}

# Whether the address of `health` answers; a proxy that the device may have is not asked
answers() {
    "$python" -c 'import sys, urllib.request as r; r.build_opener(r.ProxyHandler({})).open(sys.argv[1], timeout=5)' "$health" 2>/dev/null
}

works() {
    [ "$(control is-active "$unit" 2>/dev/null)" = active ] || return 1
    case $health in
    '') return 0 ;;
    http://*) answers ;;
    *) [ -n "$(find "$health" -newer "$folder/.started" 2>/dev/null)" ] ;;
    esac
}

# Restarts the service, and waits until it works, at most for some tries of a second or a little more: restart TRIES
restart() {
    control stop "$unit" >/dev/null 2>&1
    control reset-failed "$unit" >/dev/null 2>&1 # or NRestarts would go on from those of a service that failed before
    case $health in
    http://*) ! answers || { occupied="another program answers at $health" && return 1; } ;;
    esac
    touch "$folder/.started"
    [ "$scope" = system ] || loginctl enable-linger >/dev/null 2>&1 # so that it runs while nobody is logged in
    control daemon-reload && control enable "$unit" >/dev/null 2>&1 && control restart "$unit" || return 1
    tries=$1
    while [ "$tries" -gt 0 ]; do
        works && return 0
        [ "$(control is-active "$unit" 2>/dev/null)" != failed ] || return 1
        restarts=$(control show --property NRestarts --value "$unit" 2>/dev/null)
        [ "${restarts:-0}" -lt 2 ] || return 1
        sleep 1
        tries=$((tries - 1))
    done
    return 1
}

# The last line of the service's log
last_words() {
    if [ "$scope" = user ]; then
        journalctl --user -u "$unit" -n 1 -o cat --no-pager 2>/dev/null
    else
        as_root journalctl -u "$unit" -n 1 -o cat --no-pager 2>/dev/null
    fi | tail -n 1
}
