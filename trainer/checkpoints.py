"""Everything that a training needs to go on exactly where it was, in one file that is whole or not there."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..runtime.errors import CharedgeError
from ..runtime.files import write_atomically

KEPT = 2


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


def save_checkpoint(folder: Path, variables: Sequence[Any], position: Position) -> Path:
    """Write all variables (model, optimiser and random state) and the position; keep the newest few files.

    Args:
        folder: the run's `checkpoints`.
        variables: Keras variables, always in the same order.
        position: where the training is.
    """
    arrays: dict[str, Any] = {str(i): variable.value.numpy() for i, variable in enumerate(variables)}
    arrays["position"] = np.array(json.dumps(asdict(position)))
    content = io.BytesIO()
    np.savez(content, **arrays)
    path = folder / f"epoch-{position.epoch:05d}-step-{position.step:07d}.npz"
    write_atomically(path, content.getvalue())
    for old in sorted(folder.glob("epoch-*.npz"))[:-KEPT]:
        old.unlink()
    return path


def restore_checkpoint(folder: Path, variables: Sequence[Any]) -> Position:
    """Put the newest checkpoint's values into the variables.

    Raises:
        CharedgeError: there is no checkpoint, or it is of another model.
    """
    files = sorted(folder.glob("epoch-*.npz"))
    if not files:
        raise CharedgeError(f"{folder} has no checkpoint to resume from: train anew with --overwrite.")
    try:
        with np.load(files[-1]) as content:
            values = [content[str(i)] for i in range(len(variables))]
            position = Position(**json.loads(str(content["position"])))
    except Exception as error:  # numpy, zipfile and json each have their own
        raise CharedgeError(f"{files[-1]} is damaged ({error}): delete it to resume from the one before.") from None
    for variable, value in zip(variables, values, strict=True):
        if tuple(variable.shape) != value.shape:
            raise CharedgeError(f"{files[-1]} is of another model: train anew with --overwrite.")
        variable.assign(value)
    return position
