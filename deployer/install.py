"""charedge on the device: a virtual environment, made by its own Python and pip of wheels that are carried or fetched."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from .device import Device
from .fetch import System, fetch_wheels
from .lock import Hold
from .plan import Plan
from .ssh import Connection, sha256_of
from .wheel import OwnWheel


def wheels_to_carry(connection: Connection, device: Device, plan: Plan, own: OwnWheel, offline: bool) -> list[Path] | None:
    """The wheels that have to be carried beside our own, fetched here; None if the device's pip fetches all of them.

    Args:
        connection: to the device.
        device: as it is.
        plan: for its Python and extras.
        own: our own wheel.
        offline: whether they are carried even if the device has a network.

    Raises:
        CharedgeError: they cannot be fetched here.
    """
    python = plan.python
    if not offline and python.has_pip and connection.run("network", python.path).strip() == "1":
        return None
    assert device.glibc is not None  # the plan has checked it
    system = System(device.machine, device.glibc, python.version, device.machine == "armv7l", python.has_pip)
    return fetch_wheels(system, own, plan.extras)


def install(held: Hold, plan: Plan, own: OwnWheel, carried: list[Path] | None, sent: Callable[[int, int], object]) -> None:
    """Make the virtual environment of a plan, beside the one in use.

    Args:
        held: the device.
        plan: says how.
        own: our own wheel.
        carried: the others, or None if the device's pip fetches them.
        sent: called with the number of bytes that were sent, and their number in all.

    Raises:
        CharedgeError: the device's pip refuses them, or the disk is full; the environment in use is unchanged.
    """
    with tempfile.TemporaryDirectory(prefix="charedge-") as folder:
        wheel = Path(folder) / own.name
        wheel.write_bytes(own.content)
        files = [wheel, *(carried or [])]
        there: dict[str, str] = {name: sha256 for sha256, name in (line.split(" ", 1) for line in held.run("wheels").splitlines())}
        files = [file for file in files if there.get(file.name) != sha256_of(file)]
        total, done = sum(file.stat().st_size for file in files), 0
        for file in files:
            held.push(file, f"wheels/{file.name}", lambda bytes, before=done: sent(before + bytes, total))
            done += file.stat().st_size
    extras = f"[{','.join(sorted(plan.extras))}]" if plan.extras else ""
    content = f"wheel={own.sha256}\npython={plan.python.release}\nextras={' '.join(sorted(plan.extras))}"
    switches = (int(carried is not None), int(own.name.endswith("armv7l.whl")), int(not plan.python.has_pip))
    held.run("install", plan.environment, plan.python.path, own.name, extras, *switches, content)
