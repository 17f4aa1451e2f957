"""Several devices at once, side by side: one that fails does not affect the others."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ..runtime.errors import CharedgeError, InvalidOption
from .report import Deployment
from .ssh import CannotConnect, Target

MOST_AT_ONCE = 16
ONE = Callable[[Target, bool], Deployment]


def on_all(targets: Sequence[Target], work: ONE, has_terminal: bool) -> list[Deployment | CharedgeError]:
    """Do a work on all devices.

    ssh asks for passwords and host keys of one device at a time, and only where it cannot connect without asking.

    Args:
        targets: the devices, each once.
        work: called with a device and whether ssh may ask.
        has_terminal: whether there is anyone to ask.

    Returns:
        The result of each device, or its error, in the order of the devices.

    Raises:
        InvalidOption: a device is given twice.
    """
    twice = {target.address for target in targets if sum(other == target for other in targets) > 1}
    if twice:
        raise InvalidOption("target", f"{', '.join(sorted(twice))} is given twice: leave one out.")
    if len(targets) == 1:
        return [_result(lambda: work(targets[0], has_terminal))]
    asking = threading.Lock()

    def one(target: Target) -> Deployment | CharedgeError:
        result = _result(lambda: work(target, False))
        if isinstance(result, CannotConnect) and has_terminal:
            with asking:
                result = _result(lambda: work(target, True))
        return result

    with ThreadPoolExecutor(min(len(targets), MOST_AT_ONCE)) as pool:
        return list(pool.map(one, targets))


def _result(work: Callable[[], Deployment]) -> Deployment | CharedgeError:
    try:
        return work()
    except CharedgeError as error:
        return error


def read_targets(file: Path) -> list[str]:
    """The devices in a file, one a line; empty lines and lines that begin with `#` are left out.

    Raises:
        InvalidOption: the file cannot be read.
    """
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeError) as error:
        raise InvalidOption("targets", f"{file} cannot be read ({error}): give a text file with a device on each line.") from None
    return [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
