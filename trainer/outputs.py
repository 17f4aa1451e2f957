"""Checks that a command does not overwrite a file that it reads."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from ..runtime.errors import CharedgeError, InvalidOption
from .run import RUN_FILES, Run


def require_outside(name: str, output: Path, run: Run) -> None:
    """Check that an output is not in the run folder that is read, nor a link to one of its files.

    Args:
        name: the argument that gives the output.
        output: a file or folder, which may exist.
        run: the run folder.

    Raises:
        InvalidOption: the output would change the run.
    """
    folder = _identity(run.path)
    places = (output.parent.resolve() / output.name, output.resolve())
    inside = any(_identity(path) == folder for place in places for path in (place, *place.parents))
    if inside or _identity(output) in {_identity(path) for path in run.path.rglob("*")}:
        raise InvalidOption(name, f"{output} is in the run {run.path}, which is read: choose a place outside it.")


def require_inputs_kept(run: Run, files: Iterable[Path]) -> None:
    """Check that a training does not overwrite the files that it reads.

    Args:
        run: the run folder to write.
        files: the text files or the vocabulary file.

    Raises:
        InvalidOption: a file that is read would be replaced.
    """
    written = _identities_of(run)
    for path in files:
        if _identity(path) in written:
            raise InvalidOption("output", f"{run.path} would replace {path}, which is read: choose another folder.")


def require_log_apart(json_log: Path, files: Iterable[Path], runs: Iterable[Run]) -> None:
    """Check that a log is not one of the files that a training reads or writes.

    Args:
        json_log: the log file.
        files: files that are read.
        runs: runs that are read or written.

    Raises:
        InvalidOption: it is one of them.
    """
    log = _identity(json_log)
    for path in files:
        if _identity(path) == log:
            raise InvalidOption("json_log", f"{json_log} is {path}, which is read: choose another file.")
    for run in runs:
        if log in _identities_of(run):
            raise InvalidOption("json_log", f"{json_log} is a file of the run {run.path}: choose another file.")


def require_apart(new: Run, name: str, others: Iterable[Path]) -> None:
    """Check that a new run folder is apart from the runs that are read.

    Args:
        new: the run folder to write.
        name: the argument that gives the other runs.
        others: folders of the runs to read.

    Raises:
        InvalidOption: a run to read is the folder to write, in it, or around it.
    """
    for other in others:
        inside, around = _is_in(new.path, other), _is_in(other, new.path)
        if inside or around:
            place = "the same folder" if inside and around else "one folder in the other"
            raise InvalidOption(
                "output",
                f"{new.path} and `{name}` {other} are {place}, which would be written while it is read: give a new folder.",
            )


def _is_in(inner: Path, outer: Path) -> bool:
    """Whether a path is another one or inside it, links resolved."""
    real, place = Path(os.path.realpath(inner)), os.path.realpath(outer)
    return any(
        str(folder) == place or (folder.exists() and outer.exists() and folder.samefile(outer)) for folder in (real, *real.parents)
    )


def require_recordable(paths: Mapping[str, Iterable[object]]) -> None:
    """Check that paths are valid UTF-8, as config.json, Keras and TensorFlow need.

    Args:
        paths: the paths by argument name.

    Raises:
        CharedgeError: a path is not valid UTF-8.
    """
    for name, given in paths.items():
        for path in given:
            if os.fsencode(str(path)).decode(errors="replace") != str(path):
                raise CharedgeError(f"`{name}` {path} is a path that is not valid UTF-8: rename it.")


def _identities_of(run: Run) -> set[object]:
    """Identities of all files of a run, also of those that it does not have yet."""
    existing = [path for pattern in (*RUN_FILES, "checkpoints/*") for path in run.path.glob(pattern)]
    return {_identity(path) for path in (*existing, *(run.path / name for name in RUN_FILES))}


def _identity(path: Path) -> object:
    """A value that is equal for two paths to the same file or folder, whether it exists or not."""
    try:
        status = path.stat()
    except OSError:
        return os.path.realpath(path)
    return status.st_dev, status.st_ino
