# Measures the speed of a model. $1: the folder; $2: the lock's holder; $3: file name of the model; $4: characters
hold "$1" "$2"
"$1/venv/bin/python" -m charedge bench "$1/models/$3" --characters "$4" --json ||
    fail "the model was installed, but charedge bench ended with status $?: run the command again" 4
