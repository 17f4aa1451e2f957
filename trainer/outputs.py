"""What a command reads is never what it writes over."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from ..runtime.errors import InvalidOption
from .run import RUN_FILES, Run


def require_outside(option: str, output: Path, run: Run) -> None:
    """Refuse an output in the run folder that is read, or over one of its files, however they are linked.

    Args:
        option: what the output was given with.
        output: a file or folder, which may exist.
        run: the run folder.

    Raises:
        InvalidOption: the output would change the run.
    """
    folder = _identity(run.path)
    places = (output.parent.resolve() / output.name, output.resolve())
    inside = any(_identity(path) == folder for place in places for path in (place, *place.parents))
    if inside or _identity(output) in {_identity(path) for path in run.path.rglob("*")}:
        raise InvalidOption(f"{option} {output} is in the run {run.path}, which is read: choose a place outside it.")


def require_inputs_kept(run: Run, json_log: Path | None, files: Iterable[Path], runs: Sequence[Run]) -> None:
    """Refuse a training whose outputs are among its inputs.

    Args:
        run: the folder that is written.
        json_log: the file that is appended to, if any.
        files: the text, and a vocabulary.
        runs: teachers, and the run whose weights are the first.

    Raises:
        InvalidOption: a file that is read would be replaced or written to.
    """
    written, log = _identities_of(run), json_log and _identity(json_log)
    for other in runs:
        if _identity(other.path) == _identity(run.path):
            raise InvalidOption("output", f"{run.path} is a run that is read: choose another folder.")
    for path in files:
        if _identity(path) in written:
            raise InvalidOption("output", f"{run.path} would replace {path}, which is read: choose another folder.")
        if _identity(path) == log:
            raise InvalidOption("json_log", f"{json_log} is {path}, which is read: choose another file.")
    for other in (run, *runs):
        if log in _identities_of(other):
            raise InvalidOption("json_log", f"{json_log} is a file of the run {other.path}: choose another file.")


def _identities_of(run: Run) -> set[object]:
    """Those of all files of a run, also of ones that it does not have yet."""
    existing = [path for pattern in (*RUN_FILES, "checkpoints/*") for path in run.path.glob(pattern)]
    return {_identity(path) for path in (*existing, *(run.path / name for name in RUN_FILES))}


def _identity(path: Path) -> object:
    """What two paths to the same file or folder have in common, whether it exists or not."""
    try:
        status = path.stat()
    except OSError:
        return os.path.realpath(path)
    return status.st_dev, status.st_ino
