# Ends a service and removes its unit. $1: the folder; $2: the lock's holder; $3: kind; $4: scope
hold "$1" "$2"
kind=$3 scope=$4 unit=charedge-$3.service
control disable --now "$unit" >/dev/null 2>&1 && write_unit '' && [ ! -e "$(unit_place)" ] ||
    fail "$unit, a service of the $scope, cannot be removed: check that you may do this there with systemctl, then deploy again"
