"""Files that are whole or not there."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path


def write_atomically(path: Path, data: bytes) -> None:
    """Write beside the place and rename into it, so that a reader sees the old content or the new, never half.

    It is on the disk when this returns: a power cut does not bring the old content back. What a process that was killed left
    beside it is cleared away.

    Raises:
        OSError: the folder cannot be written, or the disk is full; the old content stays.
    """
    for leftover in leftovers(path.parent, f".{glob.escape(path.name)}.*"):
        with suppress(OSError):  # another user's, or no file at all: it is in nobody's way
            leftover.unlink()
    partial = partial_path(path)
    try:
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        _sync_folder(path.parent)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def partial_path(path: Path) -> Path:
    """Where this process writes a file before it has its name."""
    return path.with_name(f".{path.name}.{os.getpid()}")


def _sync_folder(folder: Path) -> None:
    """Let a rename reach the disk."""
    if sys.platform == "win32":  # where folders cannot be opened
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # a file system that cannot: the rename is done all the same
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def leftovers(folder: Path, pattern: str) -> Iterator[Path]:
    """What processes that were killed left in a folder: files or folders of this pattern that end in a dead process' number."""
    for path in folder.glob(pattern):
        process = path.suffix[1:]
        if process.isdecimal() and not alive(int(process)):
            yield path


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # another user's, or a number that is no process's: not a leftover of ours
        return True
    return True
