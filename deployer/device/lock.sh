# Takes the lock of a folder, so that two deployments do not mix.
# $1: the folder; $2: who takes it; $3: a holder whose deployment was interrupted, and whose lock may be taken over, or nothing

MOST_SECONDS=900 # that a script of an interrupted deployment may still take
STALE_MINUTES=2  # after which a lock without any sign of life is left over

lock=$1/lock waited=0
why=$(mkdir -p "$1" 2>&1) || fail "$1 cannot be made (${why##*: }): choose another folder"
until mkdir "$lock" 2>/dev/null; do
    [ -d "$lock" ] || fail "$1 cannot be written: choose another folder, or free some space"
    holder=$(cat "$lock/holder" 2>/dev/null) || holder='another deployment'
    process=$(cat "$lock/process" 2>/dev/null) || process=
    if [ -n "$process" ] && [ "$(stamp "${process%% *}")" = "$process" ]; then
        [ "$holder" = "$3" ] && [ $waited -lt $MOST_SECONDS ] || fail "$holder is deploying to $1: wait until it is done"
        printf '\n' || exit 1 # ends a script whose connection was cut
        sleep 1
        waited=$((waited + 1))
    elif [ "$holder" = "$3" ] || [ -n "$(find "$lock" -prune -mmin +$STALE_MINUTES)" ]; then
        mv "$lock" "$lock.$$" 2>/dev/null && rm -rf "$lock.$$"
    else
        fail "$holder is deploying to $1: wait until it is done; a lock that was left over is free after $STALE_MINUTES minutes"
    fi
done
printf '%s\n' "$2" >"$lock/holder" || {
    rm -rf "$lock"
    fail "$lock cannot be written: free some space, or choose another folder"
}
hold "$1" "$2"
