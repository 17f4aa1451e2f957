"""A deployment's hold on a device: while one has it, another is refused, and every script that changes something checks it."""

from __future__ import annotations

import getpass
import itertools
import os
import platform
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..runtime.errors import CharedgeError
from .device import Device
from .ssh import Connection, sha256_of

_numbers = itertools.count(1)
_held: set[str] = set()
"""The holders of this process: its deployments, which may reach one device under two names."""


class Hold:
    """The lock of a folder on a device, and what may be done there with it."""

    def __init__(self, connection: Connection, prefix: str, holder: str) -> None:
        self.prefix, self._connection, self._holder = prefix, connection, holder

    @property
    def address(self) -> str:
        return self._connection.target.address

    def run(self, script: str, *arguments: object) -> str:
        """Run a script, whose first two arguments are the folder and the holder; as `Connection.run`."""
        return self._connection.run(script, self.prefix, self._holder, *arguments)

    def push(self, file: Path, place: str, sent: Callable[[int], object] | None = None) -> None:
        """Copy a file; it has its name on the device only when all of it is there and on the disk.

        Args:
            file: on this machine.
            place: on the device, in the folder.
            sent: called with the number of bytes that were sent so far.

        Raises:
            Failed: the device cannot write it; what was there before is unchanged.
            Disconnected: the connection was cut; what was there before is unchanged.
        """
        arguments = (self.prefix, self._holder, place, file.stat().st_size, sha256_of(file))
        self._connection.run("receive", *arguments, data=file, sent=sent)


@contextmanager
def hold(connection: Connection, device: Device) -> Iterator[Hold]:
    """Take the lock of the device's folder until the end of the block.

    The lock of a deployment from this machine that was interrupted is taken over, once its last script has ended; any other one
    whose holder has not been heard of for two minutes, too.

    Raises:
        CharedgeError: another deployment holds it, or the folder cannot be written.
    """
    holder = f"{_process()}.{next(_numbers)}"
    _held.add(holder)
    try:
        connection.run("lock", device.prefix, holder, device.holder if _is_over(device.holder) else "")
        try:
            yield Hold(connection, device.prefix, holder)
        finally:
            with suppress(CharedgeError):  # the connection was cut
                connection.run("unlock", device.prefix, holder)
    finally:
        _held.discard(holder)


def _process() -> str:
    """This process, as others are to know it."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a user without a name
        user = str(os.getuid())
    return re.sub(r"[^\w.@ -]", "-", f"{user}@{platform.node()} process {os.getpid()}")


def _is_over(holder: str) -> bool:
    """Whether a holder is a process of this machine that has ended, or a deployment of this process that has."""
    ours, _, number = _process().rpartition(" ")
    theirs, _, deployment = holder.rpartition(" ")
    other = deployment.partition(".")[0]
    if ours != theirs or not other.isdigit():
        return False
    if other == number:
        return holder not in _held
    try:
        os.kill(int(other), 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        return False
    return False
