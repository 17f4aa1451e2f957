"""Checkpoints: everything that an exact resume needs, each in one file that is written atomically."""

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
"""Error numbers for a full disk, quota or file-size limit; TensorFlow's errors have no number."""


@dataclass
class Position:
    """Position of a training; the order of the data follows from the seed and the epoch."""

    epoch: int = 0
    """Finished epochs."""
    step: int = 0
    """Finished batches of the current epoch."""
    loss_sum: float = 0.0
    """Sum of the losses of these batches, in nats per character."""
    seconds: float = 0.0
    """Time that these batches took."""


def save_checkpoint(folder: Path, variables: Sequence[Any], position: Position, state: np.ndarray | None = None) -> Path:
    """Save all variables (model, optimiser, averages and random state) and the position; keep the newest three checkpoints.

    Args:
        folder: the run's `checkpoints` folder.
        variables: Keras variables, always in the same order.
        position: position of the training.
        state: recurrent state float32 [B, S] that the next batch continues from; None if that is zeros.

    Returns:
        The path of the checkpoint.

    Raises:
        CharedgeError: it cannot be written; earlier checkpoints are kept.
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
    """The error for a run that cannot be written; its remedy depends on whether there is a checkpoint to resume from.

    Args:
        run: the run folder.
        path: the file or folder that could not be written.
        error: the error of the system or of TensorFlow.
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
    """Restore the variables from the newest checkpoint; damaged ones are skipped with a warning.

    Args:
        folder: the run's `checkpoints` folder.
        variables: Keras variables, in the order of `save_checkpoint`.

    Returns:
        The position, and the recurrent state float32 [B, S] that the next batch continues from, or None if that is zeros.

    Raises:
        CharedgeError: there is no checkpoint, or it belongs to another model.
    """
    for path in sorted(folder.glob(ANY), reverse=True):
        try:
            values, position, state = _read(path)
        except Exception as error:  # numpy, zipfile and json each raise their own
            warnings.warn(f"{path} is damaged ({error}); the checkpoint before it is used.", stacklevel=2)
            continue
        _check_shapes(path, variables, values)
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)
        return position, state
    raise CharedgeError(f"{folder} has no checkpoint to resume from: train again with `overwrite`.")


def read_epoch(folder: Path, epoch: int, variables: Sequence[Any]) -> list[np.ndarray] | None:
    """Read the values that the variables had at the end of an epoch.

    Args:
        folder: the run's `checkpoints` folder.
        epoch: the epoch, from 1.
        variables: Keras variables, in the order of `save_checkpoint`.

    Returns:
        The values in the order of the variables, or None if there is no readable checkpoint of that epoch.

    Raises:
        CharedgeError: the checkpoint belongs to another model.
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
    """Read a checkpoint: values in the order of the variables, position, and recurrent state or None."""
    with np.load(path) as content:
        values = [content[str(i)] for i in range(sum(name.isdecimal() for name in content))]
        return values, Position(**json.loads(str(content["position"]))), content.get(STATE)


def _check_shapes(path: Path, variables: Sequence[Any], values: Sequence[np.ndarray]) -> None:
    if [tuple(variable.shape) for variable in variables] != [value.shape for value in values]:
        raise CharedgeError(f"{path} does not match {CONFIG}: copy the run folder again, or train again with `overwrite`.")
