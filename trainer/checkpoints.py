"""Everything that a training needs to continue exactly where it was, in one file that is whole or not there."""

from __future__ import annotations

import errno
import io
import json
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..runtime.errors import CharedgeError
from ..runtime.files import write_atomically

KEPT = 3
STATE = "state"
FOLDER, CONFIG = "checkpoints", "config.json"
ANY = "epoch-*.npz"
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
"""What the system says where there is no room; TensorFlow does not say it by number."""


@dataclass
class Position:
    """Where a training is. The order of the data follows from the seed and the epoch."""

    epoch: int = 0
    """Epochs finished."""
    step: int = 0
    """Batches done of the epoch under way."""
    loss_sum: float = 0.0
    """Of this epoch's batches, in nats."""
    seconds: float = 0.0
    """Spent on this epoch's batches."""


def save_checkpoint(folder: Path, variables: Sequence[Any], position: Position, state: np.ndarray | None = None) -> Path:
    """Write all variables (model, optimiser, averages and random state) and the position; keep the newest few files.

    Args:
        folder: the run's `checkpoints`.
        variables: Keras variables, always in the same order.
        position: where the training is.
        state: float32 [B, S] that the next batch continues from.

    Raises:
        CharedgeError: it cannot be written; the checkpoints before it stay.
    """
    arrays: dict[str, Any] = {str(i): variable.value.numpy() for i, variable in enumerate(variables)}
    arrays["position"] = np.array(json.dumps(asdict(position)))
    if state is not None:
        arrays[STATE] = state
    content = io.BytesIO()
    np.savez(content, **arrays)
    path = folder / _name(position.epoch, position.step)
    try:
        write_atomically(path, content.getvalue())
        for old in sorted(folder.glob(ANY))[:-KEPT]:
            old.unlink()
    except OSError as error:
        raise unwritable(folder.parent, path, error) from None
    return path


def unwritable(run: Path, path: Path, error: Exception) -> CharedgeError:
    """What to say where a run cannot be written, which depends on whether there is a checkpoint to resume from.

    Args:
        run: the run folder.
        path: what could not be written.
        error: from the system or from TensorFlow.
    """
    if not run.is_dir():
        return CharedgeError(
            f"{run} was moved or deleted while it was trained: if it was moved, continue with `resume` and its new place as "
            "`output`; otherwise train again."
        )
    reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
    number = getattr(error, "errno", None)
    repair = "make room, then " if number is None or number in FULL else ""
    way = "continue with `resume`" if any((run / FOLDER).glob(ANY)) else "train again with `overwrite`"
    return CharedgeError(f"{path} cannot be written ({reason}): {repair}{way}.")


def restore_checkpoint(folder: Path, variables: Sequence[Any]) -> tuple[Position, np.ndarray | None]:
    """Put the newest checkpoint's values into the variables; one that is damaged is skipped with a warning.

    Returns:
        Where the training was, and the state that its next batch continues from, if it is carried.

    Raises:
        CharedgeError: there is no checkpoint, or it is of another model.
    """
    for path in sorted(folder.glob(ANY), reverse=True):
        try:
            values, position, state = _read(path)
        except Exception as error:  # numpy, zipfile and json each have their own
            warnings.warn(f"{path} is damaged ({error}); the checkpoint before it is used.", stacklevel=2)
            continue
        _check_shapes(path, variables, values)
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)
        return position, state
    raise CharedgeError(f"{folder} has no checkpoint to resume from: train again with `overwrite`.")


def read_epoch(folder: Path, epoch: int, variables: Sequence[Any]) -> list[np.ndarray] | None:
    """The values that the variables had at the end of an epoch, or None if no readable checkpoint holds them any more.

    Raises:
        CharedgeError: the checkpoint is of another model.
    """
    path = folder / _name(epoch, 0)
    try:
        values, _, _ = _read(path)
    except Exception:  # as above
        return None
    _check_shapes(path, variables, values)
    return values


def _name(epoch: int, step: int) -> str:
    return f"epoch-{epoch:05d}-step-{step:07d}.npz"


def _read(path: Path) -> tuple[list[np.ndarray], Position, np.ndarray | None]:
    """A checkpoint's values in the order of the variables, its position, and its state if it has one."""
    with np.load(path) as content:
        values = [content[str(i)] for i in range(sum(name.isdecimal() for name in content))]
        return values, Position(**json.loads(str(content["position"]))), content.get(STATE)


def _check_shapes(path: Path, variables: Sequence[Any], values: Sequence[np.ndarray]) -> None:
    if [tuple(variable.shape) for variable in variables] != [value.shape for value in values]:
        raise CharedgeError(
            f"{path} is of another model than {CONFIG} describes: copy the run folder again, or train again with `overwrite`."
        )
