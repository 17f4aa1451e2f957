# Shows the log of a service as it comes. $1: kind; $2: scope
if [ "$2" = user ]; then
    exec journalctl --user -fu "charedge-$1"
elif [ "$(id -u)" = 0 ]; then
    exec journalctl -fu "charedge-$1"
else
    exec sudo -n journalctl -fu "charedge-$1"
fi
