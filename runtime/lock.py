"""Lock files: a lock between processes and between the parts of one; the file exists as long as the lock is held."""

from __future__ import annotations

import errno
import os
import re
import sys
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import IO

HOLDER = re.compile(rb"(?:(\d+) ([\w.-]*) (\d{4}-[\dT:+-]+)\n)?")
"""The content of a lock file: process, host and time, or nothing yet."""


class Held(Exception):
    """Another process, or another part of this one, holds the lock.

    Attributes:
        holder: its description, for example `process 12 on raspberrypi since 2026-01-02T03:04:05+00:00`.
    """

    def __init__(self, holder: str) -> None:
        super().__init__(holder)
        self.holder = holder


class FileLock:
    """A lock that is held from its creation to its `release`.

    The system releases it when the process ends, in whatever way; a lock file that remains then blocks nobody. On Windows and on
    file systems without locks it has no effect. Links are not followed, and a file that is not a lock file is neither written
    nor removed.
    """

    def __init__(self, path: Path) -> None:
        """Take the lock.

        Args:
            path: the lock file, used for nothing else.

        Raises:
            Held: it is held already.
            OSError: the file cannot be created, or is not a regular file.
        """
        self._path = path
        self._file = None if sys.platform == "win32" else _acquire(path)

    def release(self) -> None:
        """Release the lock and remove its file; a second call does nothing."""
        if self._file is None:
            return
        if _is_at(self._path, self._file) and _holder(self._file):
            with suppress(OSError):  # while it is held: others that have it open see that it is gone, and open a new one
                self._path.unlink()
        self._file.close()
        self._file = None


def _acquire(path: Path) -> IO[bytes]:
    """Open the lock file and lock it.

    Raises:
        Held: it is held already.
    """
    import fcntl  # which Windows lacks

    while True:
        file = _open(path)
        try:
            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with file:
                raise Held(_name(_holder(file))) from None
        except OSError:  # a file system without locks
            pass
        if _is_at(path, file):  # else its last holder removed it just now
            holder = _holder(file)
            if not (holder and holder[1]):
                break
            path.unlink()  # left by a process that was killed
        file.close()
    if holder:
        host = re.sub(r"[^\w.-]", "-", os.uname().nodename)
        line = f"{os.getpid()} {host} {datetime.now(timezone.utc).isoformat(timespec='seconds')}\n"
        with suppress(OSError):  # no space, or a file of another user: the lock is held anyway
            os.write(file.fileno(), line.encode("ascii", "replace"))
    return file


def _open(path: Path) -> IO[bytes]:
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise FileExistsError(errno.EEXIST, f"{path.name} is not a regular file")
    flags = os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        descriptor = os.open(path, flags | os.O_RDWR, 0o644)
    except PermissionError:  # left by another user: it can be locked all the same, unless the folder cannot be written
        descriptor = os.open(path, flags | os.O_RDONLY, 0o644)
    return os.fdopen(descriptor, "rb", buffering=0)


def _is_at(path: Path, file: IO[bytes]) -> bool:
    try:
        return os.path.samestat(path.lstat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def _holder(file: IO[bytes]) -> re.Match[bytes] | None:
    """The holder as the file names it; None if it is not a lock file."""
    return HOLDER.fullmatch(os.pread(file.fileno(), 500, 0))


def _name(holder: re.Match[bytes] | None) -> str:
    if not (holder and holder[1]):
        return "another process"
    process, host, time = (group.decode() for group in holder.groups())
    return f"process {process} on {host} since {time}"
