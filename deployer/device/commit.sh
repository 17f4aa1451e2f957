# Verifies a model and puts it, its environment and its service in the place of what was there; goes back if the service does not come.
#
# From the first rename on the script needs no connection: it ends with the new model or with the old one, whoever is listening. A
# power cut in between leaves the new model, verified, and the old one as MODEL.old; the next deployment finishes this.
#
# $1: the folder; $2: the lock's holder; $3: file name of the model; $4: `new`, whose file is MODEL.part, `same` or `previous`
# $5: name of the environment; $6, $7, $9: kind, scope and health of service.sh; $8: text of the unit; ${10}: a file of allowed
# signers, or nothing; ${11}: 1 if a signature was sent, as MODEL.part.sig
hold "$1" "$2"
kind=$6 unit=charedge-$6.service scope=$7 text=$8 health=$9 signers=${10}
folder=$1/models model=$1/models/$3 kept=$1/models/${3%.tflite}.previous.tflite
link=$1/venv python=$1/venvs/$5/bin/python

# A second name for a file, or a copy where the file system has no second names; removes it where there is no file: keep FILE COPY
keep() {
    rm -f "$2"
    [ ! -f "$1" ] || ln "$1" "$2" 2>/dev/null || cp -p "$1" "$2"
}

# Moves a file, unless it is in its place already, and its signature, which may be missing: move FILE PLACE
move() {
    [ ! -f "$1" ] || mv -f "$1" "$2" || return 1
    if [ -f "$1.sig" ]; then mv -f "$1.sig" "$2.sig"; else rm -f "$2.sig"; fi
}

# Puts a symbolic link in its place in one step: point TARGET
point() {
    ln -sfn "$1" "$link.part" && "$python" -c 'import os, sys; os.replace(*sys.argv[1:])' "$link.part" "$link"
}

# The file to verify, and its signature, as MODEL.part.sig
part=$model.part
[ "${11}" = 1 ] || rm -f "$part.sig"
case $4 in
same)
    rm -f "$part" # of a deployment that was cut
    part=$model
    [ -f "$model.part.sig" ] || keep "$model.sig" "$model.part.sig"
    ;;
previous)
    [ -f "$kept" ] || fail "there is no previous $3: nothing to go back to"
    keep "$kept" "$part"
    keep "$kept.sig" "$part.sig"
    ;;
esac
if [ -n "$signers" ]; then
    verified=$("$python" -m charedge verify "$part" --json --allowed-signers "$signers" --signature "$model.part.sig")
else
    verified=$("$python" -m charedge verify "$part" --json)
fi || {
    rm -f "$model.part" "$model.part.sig"
    exit 4
}

# Nothing interrupts the rest
trap '' HUP INT TERM PIPE
environment=$(readlink "$link" 2>/dev/null)
[ -z "$kind" ] || before=$(cat "$(unit_place)" 2>/dev/null)
if [ "$4" != same ]; then
    keep "$model" "$model.old" && keep "$model.sig" "$model.old.sig" || fail "$model cannot be kept: free some space"
fi
flush

# Puts back what was there before
go_back() {
    now='the model was installed, without a service'
    if [ -f "$model.old" ]; then
        move "$model.old" "$model"
        now='the previous model was restored'
    elif [ ! -f "$model" ]; then
        now='no model was installed'
    fi
    [ -z "$environment" ] || point "$environment"
    if [ -n "$kind" ]; then
        write_unit "$before"
        port=$(printf '%s\n' "$before" | sed -n 's/^ExecStart=.* --port \([0-9]*\)$/\1/p')
        health=${port:+http://127.0.0.1:$port/health} # of the service from before; its session is not known here
        [ -z "$before" ] || restart 90 || now="$now, but the previous service does not work either"
    fi
    flush
}

if ! { point "venvs/$5" && move "$model.part" "$model" && flush; }; then
    go_back
    fail "$model cannot be written: $now"
fi
if [ -n "$kind" ] && ! { mkdir -p "$1/sessions" && write_unit "$text" && restart 90; }; then
    why=${occupied:-$(last_words)}
    go_back
    fail "the service does not work (${why:-it says nothing}): $now" 5
fi

if cmp -s "$model.old" "$model"; then
    rm -f "$model.old" "$model.old.sig" # a power cut came before the rename
elif [ -f "$model.old" ]; then
    move "$model.old" "$kept"
fi
for other in "$1"/venvs/*; do
    [ "$other" = "$1/venvs/$5" ] || rm -rf "$other"
done
flush
printf 'verified=%s\n' "$(printf '%s' "$verified" | tr -d '\n')"
if [ -n "$kind" ] && [ "$scope" = user ] && [ ! -e "/var/lib/systemd/linger/$(id -un)" ]; then
    printf 'lingers=0\n'
fi
