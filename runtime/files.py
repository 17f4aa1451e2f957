"""Files that are whole or not there."""

from __future__ import annotations

import glob
import os
from contextlib import suppress
from pathlib import Path


def write_atomically(path: Path, data: bytes) -> None:
    """Write beside the place and rename into it, so that a reader sees the old content or the new, never half.

    What a process that was killed left beside it is cleared away.

    Raises:
        OSError: the folder cannot be written, or the disk is full; the old content stays.
    """
    _clear_leftovers(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def _clear_leftovers(path: Path) -> None:
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.*"):
        process = leftover.suffix[1:]
        if process.isdecimal() and not alive(int(process)):
            with suppress(OSError):  # another user's, or no file at all: it is in nobody's way
                leftover.unlink()


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # another user's, or a number that is no process's: not a leftover of ours
        return True
    return True
