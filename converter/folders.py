"""Atomic writing of a SavedModel's folder: it is complete or absent."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..runtime.files import partial_folder

MAIN_FILE = "saved_model.pb"
AT_FDCWD, RENAME_EXCHANGE = -100, 2  # of Linux' renameat2


def is_saved_model(folder: Path) -> bool:
    """Whether a folder holds a SavedModel."""
    return (folder / MAIN_FILE).is_file()


@contextmanager
def replacing(place: Path) -> Iterator[Path]:
    """Make a new folder beside a place; it is moved to the place at the end, or removed after an error.

    A SavedModel in the place is kept until then, and then deleted. Leftovers of killed processes beside it are removed.

    Raises:
        OSError: the folder cannot be written; the place is unchanged.
    """
    with partial_folder(place.parent) as partial:
        yield partial
        _sync(partial)
        if is_saved_model(place):
            _exchange(partial, place)
        else:
            partial.rename(place)


def _sync(folder: Path) -> None:
    """Write a folder and its files to the disk."""
    for path in (*folder.rglob("*"), folder):
        file = os.open(path, os.O_RDONLY)
        try:
            os.fsync(file)
        finally:
            os.close(file)


def _exchange(new: Path, old: Path) -> None:
    """Swap two folders in one step; on systems that cannot, in three, where a crash may leave the old one as `NEW.old`."""
    renameat2 = getattr(ctypes.CDLL(None), "renameat2", None)
    if renameat2 is not None and not renameat2(AT_FDCWD, os.fsencode(new), AT_FDCWD, os.fsencode(old), RENAME_EXCHANGE):
        return
    aside = new.with_name(f"{new.name}.old")
    old.rename(aside)
    try:
        new.rename(old)
    except BaseException:
        aside.rename(old)
        raise
    aside.rename(new)
