"""Where a conversion writes: the place is checked before the work, and what is written is whole or not there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..runtime.errors import CharedgeError, InvalidOption
from ..runtime.files import write_atomically
from ..trainer.outputs import require_outside
from ..trainer.run import Run
from .folders import is_saved_model


def check_file(field: str, output: Path, run: Run, suffix: str = ".tflite") -> None:
    """Check that a file can be written, with its parent folders where they are missing.

    Args:
        field: the argument that `output` was given as.
        output: the file.
        run: what is read.
        suffix: how its name should end, for errors.

    Raises:
        InvalidOption: the file is in the run, or one of its files.
        CharedgeError: nothing could be written there.
    """
    _require_outside(field, output, run)
    with _as_sentence(field, output):
        if output.is_dir():
            raise CharedgeError(f"`{field}` {output} is a folder: give the name of a {suffix} file.")
        if output.exists() and not output.is_file():
            raise CharedgeError(f"`{field}` {output} is not a regular file: give another name.")  # /dev/null stays
        _require_writable(field, output, output.absolute().parent)


def check_folder(field: str, folder: Path, run: Run) -> None:
    """Check that files can be written into a folder, which is made where it is missing.

    Raises:
        InvalidOption: the folder is in the run.
        CharedgeError: nothing could be written there.
    """
    _require_outside(field, folder, run)
    with _as_sentence(field, folder):
        _require_writable(field, folder, folder.absolute())


def check_saved_model(field: str, output: Path, run: Run) -> None:
    """Check that a folder can be made, or is a SavedModel that can be replaced.

    Raises:
        InvalidOption: the folder is in the run, or has the run in it.
        CharedgeError: nothing could be written there, or something else is there.
    """
    _require_outside(field, output, run)
    with _as_sentence(field, output):
        place = output.resolve()
        if place in run.path.resolve().parents:  # it would be replaced as a whole
            raise InvalidOption(field, f"{output} contains the run {run.path}, which is read: choose another folder.")
        try:
            str(place).encode()
        except UnicodeEncodeError:
            raise CharedgeError(f"`{field}` {output} is not UTF-8, which TensorFlow needs: give another path.") from None
        if place.exists() and not place.is_dir():
            raise CharedgeError(f"`{field}` {output} is a file: give the name of a folder.")
        if place.is_dir() and not is_saved_model(place) and any(place.iterdir()):
            raise CharedgeError(f"`{field}` {output} is a folder that holds no SavedModel but other files: choose a new folder.")
        _require_writable(field, output, place.parent)


def write_file(field: str, path: Path, data: bytes) -> None:
    """Write a file as a whole, and make its parent folders.

    Raises:
        CharedgeError: it cannot be written; what is in its place stays.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, data)
    except OSError as error:
        raise CharedgeError(f"`{field}` {path} cannot be written ({error.strerror}): choose another place.") from None


@contextmanager
def _as_sentence(field: str, output: Path) -> Iterator[None]:
    """
    Raises:
        CharedgeError: the system refuses even to look at the place, as with names that are too long.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle, before Python 3.13
        reason = getattr(error, "strerror", None) or error
        raise CharedgeError(f"`{field}` {output} cannot be written ({reason}): choose another place.") from None


def _require_writable(field: str, output: Path, folder: Path) -> None:
    """
    Raises:
        CharedgeError: the folder, or the nearest one to it that exists, is a file or cannot be written to.
    """
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if not existing.is_dir():
        raise CharedgeError(f"`{field}` {output} cannot be written, {existing} is not a folder: choose another place.")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise CharedgeError(f"`{field}` {output} cannot be written, {existing} is read-only: choose another place.")


def _require_outside(field: str, output: Path, run: Run) -> None:
    """
    Raises:
        InvalidOption: the output would change the run that is read.
        CharedgeError: the system refuses to look at the place.
    """
    with _as_sentence(field, output):
        require_outside(field, output, run)
