"""One training at a time in a run folder."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import IO

from ..runtime.errors import CharedgeError

LOCK = ".lock"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a run folder, which is made if it is missing and removed again if it stays empty.

    The system lets go of the lock when the process ends, however it ends. A file system without locks holds nobody up.

    Raises:
        CharedgeError: another process trains into the folder, or it cannot be written.
    """
    path = folder / LOCK
    try:
        made = _make(folder)
        lock = _acquire(path)
    except OSError as error:
        raise CharedgeError(f"--output {folder} cannot be written ({error.strerror}): choose another folder.") from None
    try:
        yield
    finally:
        path.unlink(missing_ok=True)  # while it is held: whoever has it open finds that it is gone, and opens the next one
        lock.close()
        if made:
            with suppress(OSError):
                folder.rmdir()


def _make(folder: Path) -> bool:
    missing = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    return missing


def _acquire(path: Path) -> IO[str]:
    """The open file that holds the lock, with the process, the host and the time written in it.

    Raises:
        CharedgeError: another process holds it.
        OSError: the file cannot be opened.
    """
    while True:
        lock = path.open("a+", encoding="utf-8", errors="replace")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _held(path.parent, lock) from None
        except OSError:  # the file system knows no locks
            pass
        if _is_at(path, lock):
            break
        lock.close()  # its last holder has just removed it
    lock.truncate(0)
    lock.write(f"{os.getpid()} {socket.gethostname()} {datetime.now(timezone.utc).isoformat(timespec='seconds')}\n")
    lock.flush()
    return lock


def _is_at(path: Path, file: IO[str]) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def _held(folder: Path, lock: IO[str]) -> CharedgeError:
    with lock:
        lock.seek(0)
        words = lock.read().split()
    holder = "process {} on {} since {}".format(*words) if len(words) == 3 else "another process"
    return CharedgeError(f"{folder} is being trained by {holder}: wait for it, stop it, or choose another --output.")
