"""Files that an epoch writes into the run folder: best weights, history, loss curves, TensorBoard events, config.json."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import tensorflow as tf

from ..runtime.scoring import to_bits
from .checkpoints import unwritable
from .config import Config
from .curves import draw_curves
from .model import save_model
from .run import Epoch, Run


def write_results(
    run: Run, config: Config, history: list[Epoch], weights: Sequence[np.ndarray] | None, vocabulary_size: int
) -> None:
    """Write the results of the last epoch.

    Args:
        run: the folder to write into.
        config: the training's; the time of writing is recorded in it as the end of the training.
        history: all epochs so far.
        weights: the model's weights if those of this epoch are kept; None leaves `model.keras` as it is.
        vocabulary_size: V.

    Raises:
        CharedgeError: a file cannot be written.
    """
    try:
        if weights is not None:
            save_model(weights, vocabulary_size, config, run.model)
        run.write_history(history)
        _write_tensorboard_events(run.path, history[-1])
        draw_curves(history, run.path / "curves.png")
        run.write_config(replace(config, ended=datetime.now(timezone.utc).isoformat(timespec="seconds")))
    except (OSError, tf.errors.OpError) as error:
        raise unwritable(run.path, run.path, error) from None


def _write_tensorboard_events(folder: Path, epoch: Epoch) -> None:
    with tf.summary.create_file_writer(str(folder)).as_default(step=epoch.epoch):
        tf.summary.scalar("train_nats_per_character", epoch.train_nats_per_character)
        tf.summary.scalar("validation_nats_per_character", epoch.validation_nats_per_character)
        tf.summary.scalar("validation_bits_per_character", to_bits(epoch.validation_nats_per_character))
        tf.summary.scalar("characters_per_second", epoch.characters_per_second)
        tf.summary.scalar("learning_rate", epoch.learning_rate)
