"""Atomic writing: files and folders that are complete or absent."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

PARTIAL = re.compile(r"\.charedge-[0-9a-f]{16}\.partial")
"""Names of files and folders that are still being written; random, so that nobody else can create them first."""


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file atomically: beside its place, then renamed, so that a reader sees the old content or the new one.

    The content is on the disk when this returns: a power cut does not bring the old content back.

    Raises:
        OSError: the folder cannot be written, or the disk is full; the old content stays.
    """
    with replacing(path) as file:
        file.write(data)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a new file beside a place, for reading and writing; rename it into the place at the end, or remove it after an error.

    A symbolic link in the place is replaced and not followed. Leftovers of killed processes in the folder are removed.

    Raises:
        OSError: the folder cannot be written, or the disk is full; the place is unchanged.
    """
    clear_leftovers(path.parent)
    partial, file = _create(path.parent)
    try:
        with file:  # its lock is held until it has its name
            yield file
            file.flush()
            os.fsync(file.fileno())
            if sys.platform == "win32":  # where open files cannot be renamed
                file.close()
            partial.replace(path)
        _sync_folder(path.parent)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


@contextmanager
def partial_folder(parent: Path) -> Iterator[Path]:
    """Make a temporary folder in another one; it is removed at the end, unless it was renamed.

    Leftovers of killed processes in the other folder are removed.

    Raises:
        OSError: the other folder cannot be written.
    """
    clear_leftovers(parent)
    partial, descriptor = _create_folder(parent)
    try:
        yield partial
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        if descriptor is not None:
            os.close(descriptor)


def check_room(folder: Path, size: int) -> None:
    """Check that a folder has room, by writing a file of `size` bytes and removing it.

    Raises:
        OSError: the folder cannot be written, or does not have the room.
    """
    partial, file = _create(folder)
    try:
        with file:
            file.write(bytes(size))
    finally:
        partial.unlink(missing_ok=True)


def clear_leftovers(folder: Path) -> None:
    """Remove the leftovers of killed processes in a folder: files and folders with a `PARTIAL` name that no process has locked.

    On a file system without locks they stay.
    """
    with suppress(OSError):  # the folder cannot be listed
        for path in [path for path in folder.iterdir() if PARTIAL.fullmatch(path.name)]:
            with suppress(OSError):  # locked, already removed, or of another user
                _remove_leftover(path)


def _remove_leftover(path: Path) -> None:
    """
    Raises:
        OSError: it is locked, or cannot be removed.
    """
    is_folder = path.is_dir() and not path.is_symlink()
    if sys.platform == "win32":  # where open files cannot be removed
        if not is_folder:
            path.unlink()
        return
    descriptor = os.open(path, os.O_NOFOLLOW | (os.O_DIRECTORY if is_folder else os.O_RDWR | os.O_NONBLOCK))
    try:
        _lock(descriptor)
        if is_folder:
            shutil.rmtree(path)
        else:
            path.unlink()
    finally:
        os.close(descriptor)


def _create(folder: Path) -> tuple[Path, BinaryIO]:
    """Create a new file, locked so that no process takes it for a leftover."""
    while True:
        path = _new_name(folder)
        file = path.open("x+b")
        if _hold(file.fileno(), path):
            return path, file
        file.close()


def _create_folder(parent: Path) -> tuple[Path, int | None]:
    """Create a new locked folder; returns it and the descriptor that holds the lock."""
    while True:
        path = _new_name(parent)
        path.mkdir()
        if sys.platform == "win32":
            return path, None
        with suppress(FileNotFoundError):  # taken for a leftover before it was locked
            descriptor = os.open(path, os.O_DIRECTORY | os.O_NOFOLLOW)
            if _hold(descriptor, path):
                return path, descriptor
            os.close(descriptor)


def _new_name(folder: Path) -> Path:
    return folder / f".charedge-{secrets.token_hex(8)}.partial"


def _hold(descriptor: int, path: Path) -> bool:
    """Lock what was just created, until it is closed; returns False if another process took it for a leftover before that."""
    if sys.platform == "win32":
        return True
    try:
        _lock(descriptor)
    except BlockingIOError:
        return False
    except OSError:  # without locks nothing is taken for a leftover
        return True
    try:
        return os.path.samestat(path.lstat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _lock(descriptor: int) -> None:
    """
    Raises:
        BlockingIOError: another process has it locked.
        OSError: the file system has no locks.
    """
    import fcntl  # which Windows lacks

    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _sync_folder(folder: Path) -> None:
    """Sync a folder, so that a rename in it is on the disk."""
    if sys.platform == "win32":  # where folders cannot be opened
        return
    with suppress(OSError):  # not supported, or the folder cannot be read: the rename is done anyway
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def cache_folder() -> Path:
    """Folder of downloads, encoded corpora and wheels; it may not exist, and cannot be made for a user without a home folder."""
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "charedge"
    except RuntimeError:  # no HOME, and no entry in the system's list of users
        return Path(os.devnull) / "charedge"
