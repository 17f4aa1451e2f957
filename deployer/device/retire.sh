# Ends a service and removes its unit. $1: the folder; $2: the lock's holder; $3: kind; $4: scope
hold "$1" "$2"
kind=$3 scope=$4 unit=charedge-$3.service
write_unit ''
