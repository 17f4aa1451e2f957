"""Restores a training from its run folder: the newest checkpoint, the history, and a `model.keras` that is missing."""

from __future__ import annotations

import warnings
import zipfile

import numpy as np

from ..runtime.errors import CharedgeError
from .checkpoints import Position, read_epoch, restore_checkpoint, unwritable
from .cluster import is_chief
from .config import Config
from .learner import Learner
from .model import save_model
from .run import Epoch, Run, kept_epoch


def restore_run(run: Run, learner: Learner, config: Config) -> tuple[Position, np.ndarray | None, list[Epoch]]:
    """Restore the learner's variables from the newest checkpoint; write the best weights again if their file is missing.

    Args:
        run: the run folder.
        learner: the model and optimiser, built as `config` says.
        config: the training's.

    Returns:
        Where the training was; the recurrent state that its next batch continues from, float32 [B, S + the teachers' S], or
        None if that is zeros; and the finished epochs.

    Raises:
        CharedgeError: there is no checkpoint, the files of the run folder disagree, or the best weights are lost.
    """
    position, state = restore_checkpoint(run.checkpoints, learner.variables)
    history = run.history()[: position.epoch]
    if [epoch.epoch for epoch in history] != list(range(1, position.epoch + 1)):
        raise CharedgeError(
            f"{run.path / 'history.csv'} lacks some of the {position.epoch} epochs that are finished: copy it from a "
            "backup, or train again with `overwrite`; `charedge convert` works without it."
        )
    if state is not None and (state.shape != learner.carried_shape or position.step >= learner.batches.steps):
        raise CharedgeError(
            f"{run.path} disagrees with itself (config.json and {run.checkpoints.name}): copy the run folder "
            "again, or train again with `overwrite`."
        )
    if history and is_chief() and not zipfile.is_zipfile(run.model):
        _write_kept(run, learner, config, history)
    return position, state, history


def _write_kept(run: Run, learner: Learner, config: Config, history: list[Epoch]) -> None:
    """Write `model.keras` from the checkpoint of the epoch whose weights it had.

    Raises:
        CharedgeError: no checkpoint holds that epoch's weights, or the file cannot be written.
    """
    epoch = kept_epoch(config, history)
    kept = epoch.epoch if epoch else 0
    arrays = read_epoch(run.checkpoints, kept, learner.variables)
    if arrays is None:
        raise CharedgeError(
            f"{run.model} is missing or damaged, and no checkpoint holds its weights, those of epoch {kept}, any more: "
            "copy it from a backup, or train again with `overwrite`."
        )
    values = {id(variable): array for variable, array in zip(learner.variables, arrays, strict=True)}
    averages = zip(learner.model.trainable_variables, learner.averages, strict=False)
    values |= {id(variable): values[id(average)] for variable, average in averages}
    try:
        save_model([values[id(weight)] for weight in learner.model.weights], len(learner.data.vocabulary), config, run.model)
    except OSError as error:
        raise unwritable(run.path, run.model, error) from None
    sentence = f"{run.model} was missing or damaged; it was written again from the checkpoint of epoch {kept}."
    warnings.warn(sentence, stacklevel=2)
