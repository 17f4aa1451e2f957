"""A SavedModel's folder that is whole or not there."""

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
    return (folder / MAIN_FILE).is_file()


@contextmanager
def replacing(place: Path) -> Iterator[Path]:
    """A new folder beside a place, which takes the place in the end, and is gone if anything fails before.

    A SavedModel in the place is there until then, and deleted after. What killed processes left beside it is removed.

    Raises:
        OSError: nothing can be written there; what is in the place stays.
    """
    with partial_folder(place.parent) as partial:
        yield partial
        _sync(partial)
        if is_saved_model(place):
            _exchange(partial, place)
        else:
            partial.rename(place)


def _sync(folder: Path) -> None:
    for path in (*folder.rglob("*"), folder):
        file = os.open(path, os.O_RDONLY)
        try:
            os.fsync(file)
        finally:
            os.close(file)


def _exchange(new: Path, old: Path) -> None:
    """Swap two folders in one step; where the system cannot, in three, between which a crash leaves the old one as `NEW.old`."""
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
