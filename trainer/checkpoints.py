"""Everything that a training needs to go on exactly where it was, in one file that is whole or not there."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..runtime.errors import CharedgeError
from ..runtime.files import write_atomically

KEPT = 3
STATE = "state"


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
        state: float32 [B, S] that the next batch goes on from.

    Raises:
        CharedgeError: it cannot be written; the checkpoints before it stay.
    """
    arrays: dict[str, Any] = {str(i): variable.value.numpy() for i, variable in enumerate(variables)}
    arrays["position"] = np.array(json.dumps(asdict(position)))
    if state is not None:
        arrays[STATE] = state
    content = io.BytesIO()
    np.savez(content, **arrays)
    path = folder / f"epoch-{position.epoch:05d}-step-{position.step:07d}.npz"
    try:
        write_atomically(path, content.getvalue())
        for old in sorted(folder.glob("epoch-*.npz"))[:-KEPT]:
            old.unlink()
    except OSError as error:
        raise CharedgeError(f"{path} cannot be written ({error.strerror}): make room, then go on with --resume.") from None
    return path


def restore_checkpoint(folder: Path, variables: Sequence[Any], warn: Callable[[str], object]) -> tuple[Position, np.ndarray | None]:
    """Put the newest checkpoint's values into the variables; one that is damaged is skipped with a warning.

    Returns:
        Where the training was, and the state that its next batch goes on from, if it is carried.

    Raises:
        CharedgeError: there is no checkpoint, or it is of another model.
    """
    for path in sorted(folder.glob("epoch-*.npz"), reverse=True):
        try:
            with np.load(path) as content:
                values = [content[str(i)] for i in range(len(variables))]
                position = Position(**json.loads(str(content["position"])))
                state = content.get(STATE)
        except Exception as error:  # numpy, zipfile and json each have their own
            warn(f"{path} is damaged ({error}); the checkpoint before it is used.")
            continue
        if [tuple(variable.shape) for variable in variables] != [value.shape for value in values]:
            raise CharedgeError(f"{path} is of another model: train anew with --overwrite.")
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)
        return position, state
    raise CharedgeError(f"{folder} has no checkpoint to resume from: train anew with --overwrite.")
