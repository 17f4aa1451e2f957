# Makes a virtual environment with charedge in it, in a folder of its own. The one in use is not touched.
# $1: the folder; $2: the lock's holder; $3: name of the environment; $4: a Python; $5: our wheel, in `wheels`; $6: extras in brackets,
# or nothing; $7: 1 if all wheels were carried, else pip fetches the others; $8: 1 to see the system's packages; $9: 1 if this Python
# has no pip of its own; ${10}: what the file `complete` is to contain
hold "$1" "$2"
venv=$1/venvs/$3 wheels=$1/wheels log=$1/install.log bare=$9 python=$1/venvs/$3/bin/python

pip_install() {
    if [ "$bare" = 1 ]; then
        for pip in "$wheels"/pip-*.whl; do :; done
        "$python" "$pip/pip" install "$@"
    else
        "$python" -m pip install "$@"
    fi
}

if [ ! -f "$venv/complete" ]; then
    rm -rf "$venv"
    options=
    [ "$8" = 0 ] || options="$options --system-site-packages"
    [ "$bare" = 0 ] || options="$options --without-pip"
    mkdir -p "$1/venvs" && "$4" -m venv $options "$venv" >"$log" 2>&1 ||
        fail "the virtual environment cannot be created ($(tail -n 1 "$log")): check the Python and the free space there, then deploy again"
    options='--quiet --no-input --only-binary :all:'
    if [ "$7" = 1 ]; then
        PIP_NO_INDEX=1 pip_install $options --find-links "$wheels" "$wheels/$5$6" >"$log" 2>&1
    else
        pip_install $options "$wheels/$5$6" >"$log" 2>&1
    fi || {
        advice=
        [ "$7" = 1 ] || advice=': give `offline` to copy the wheels from the workstation'
        fail "pip cannot install charedge ($(grep -v '^WARNING' "$log" | tail -n 1 | sed 's/^ERROR: //'))$advice"
    }
    "$python" -m charedge --version >"$log" 2>&1 || fail "charedge was installed, but does not start ($(tail -n 1 "$log"))"
    printf '%s\n' "${10}" >"$venv/complete.part"
    flush
    mv "$venv/complete.part" "$venv/complete"
fi
rm -rf "$wheels" "$log"
