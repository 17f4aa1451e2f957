"""Outputs of a conversion: the place is checked before the work, and files are written atomically."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from ..runtime.errors import CharedgeError, InvalidOption
from ..runtime.files import partial_folder, write_atomically
from ..trainer.outputs import require_outside
from ..trainer.run import Run
from .folders import is_saved_model


def check_file(field: str, output: Path, run: Run, suffix: str = ".tflite") -> None:
    """Check that a file can be written; missing parent folders can be made.

    Args:
        field: the name of the argument that gave `output`.
        output: the file.
        run: the run that is converted.
        suffix: the usual end of its name, for errors.

    Raises:
        InvalidOption: the file is in the run, or one of its files.
        CharedgeError: the place cannot be written.
    """
    _require_outside(field, output, run)
    with _as_sentence(field, output):
        if output.is_dir():
            raise CharedgeError(f"`{field}` {output} is a folder: give the name of a {suffix} file.")
        if output.exists() and not output.is_file():
            raise CharedgeError(f"`{field}` {output} is not a regular file: give another name.")  # as /dev/null
        _require_writable(field, output, output.absolute().parent)


def check_folder(field: str, folder: Path, run: Run) -> None:
    """Check that files can be written into a folder, which may be missing.

    Args:
        field: the name of the argument that gave `folder`.
        folder: the folder.
        run: the run that is converted.

    Raises:
        InvalidOption: the folder is in the run.
        CharedgeError: the place cannot be written.
    """
    _require_outside(field, folder, run)
    with _as_sentence(field, folder):
        _require_writable(field, folder, folder.absolute())


def check_saved_model(field: str, output: Path, run: Run) -> None:
    """Check that a folder can be made, or is a SavedModel that can be replaced.

    Args:
        field: the name of the argument that gave `output`.
        output: the folder.
        run: the run that is converted.

    Raises:
        InvalidOption: the folder is in the run, or contains the run.
        CharedgeError: the place cannot be written, or holds something else.
    """
    _require_outside(field, output, run)
    with _as_sentence(field, output):
        place = output.resolve()
        if place in run.path.resolve().parents:  # all of it would be replaced
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
    """Write a file atomically, and make its parent folders.

    Args:
        field: the name of the argument that gave the place, for errors.
        path: the file.
        data: its content.

    Raises:
        CharedgeError: it cannot be written; an existing file is unchanged.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, data)
    except OSError as error:
        raise CharedgeError(f"`{field}` {path} cannot be written ({error.strerror}): choose another place.") from None


def write_files(field: str, folder: Path, contents: Mapping[str, bytes]) -> None:
    """Write several files into a folder, all of them or none, and make the folder.

    A process that is killed between the renames at the end leaves some of them new and some old.

    Args:
        field: the argument that named them.
        folder: where they are written.
        contents: by the files' names.

    Raises:
        CharedgeError: one cannot be written; what is in their places stays.
    """
    path = folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with partial_folder(folder) as partial:
            for name, data in contents.items():
                path = folder / name
                write_atomically(partial / name, data)
                if os.path.lexists(path):
                    shutil.copy2(path, _kept(partial, name), follow_symlinks=False)
            _put_in_place(partial, folder, list(contents))
    except OSError as error:
        path = Path(error.filename2 or path)  # the place of a rename
        raise CharedgeError(f"`{field}` {path} cannot be written ({error.strerror}): choose another place.") from None


def _kept(partial: Path, name: str) -> Path:
    return partial / f"{name}.old"


def _put_in_place(partial: Path, folder: Path, names: Sequence[str]) -> None:
    """Rename files from one folder into another; if one cannot be, put back what was there.

    Raises:
        OSError: a file cannot be renamed.
    """
    try:
        for name in names:
            (partial / name).replace(folder / name)
    except BaseException:
        for name in names:
            with suppress(OSError):
                if os.path.lexists(_kept(partial, name)):
                    _kept(partial, name).replace(folder / name)
                elif not (partial / name).exists():
                    (folder / name).unlink()
        raise


@contextmanager
def _as_sentence(field: str, output: Path) -> Iterator[None]:
    """Turn a system error in the block into a sentence.

    Raises:
        CharedgeError: the system cannot examine the place, for example because its name is too long.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle, before Python 3.13
        reason = getattr(error, "strerror", None) or error
        raise CharedgeError(f"`{field}` {output} cannot be written ({reason}): choose another place.") from None


def _require_writable(field: str, output: Path, folder: Path) -> None:
    """Check that a folder, or its nearest existing parent, can be written.

    Raises:
        CharedgeError: it is a file, or cannot be written.
    """
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if not existing.is_dir():
        raise CharedgeError(f"`{field}` {output} cannot be written, {existing} is not a folder: choose another place.")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise CharedgeError(f"`{field}` {output} cannot be written, {existing} is read-only: choose another place.")


def _require_outside(field: str, output: Path, run: Run) -> None:
    """Check that an output does not change the run that is read.

    Raises:
        InvalidOption: it would.
        CharedgeError: the system cannot examine the place.
    """
    with _as_sentence(field, output):
        require_outside(field, output, run)
