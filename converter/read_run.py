"""Reading a run folder for a conversion: the weights, the texts as ids, and the manifest's record of the training."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..runtime.errors import CharedgeError
from ..runtime.text import BYTE_ORDER_MARK
from ..runtime.vocabulary import UNKNOWN_ID
from ..trainer.config import Config, recipe
from ..trainer.run import Run, kept_epoch
from .step import Layer, Weights

if TYPE_CHECKING:
    import keras

MAX_NAMED_FILES = 1000  # of the corpus: the manifest is limited in size


def held_out_ids(run: Run, most: int) -> np.ndarray:
    """The ids of the start of a run's held-out text.

    Args:
        run: the run.
        most: maximum number of characters.

    Returns:
        int32 [n], n from 2 to `most`.

    Raises:
        CharedgeError: there is no such text, or it has characters that are not in the run's vocabulary.
    """
    return _ids(run, run.held_out()[:most], "held_out.txt")


def calibration_ids(run: Run) -> np.ndarray:
    """The ids of the end of a run's training text.

    Returns:
        int32 [n], n at least 2.

    Raises:
        CharedgeError: there is no such text, or it has characters that are not in the run's vocabulary.
    """
    return _ids(run, run.calibration(), "calibration.txt")


def _ids(run: Run, text: str, name: str) -> np.ndarray:
    if len(text) < 2:
        raise CharedgeError(f"{run.path} has no text in its {name}, which `charedge convert` needs: copy the run folder again.")
    ids = run.vocabulary().encode(text)
    if UNKNOWN_ID in ids and run.config().unknown == "skip":
        raise CharedgeError(f"{run.path} disagrees with itself (vocabulary.txt and {name}): copy the run folder again.")
    return ids


def start_text(run: Run) -> str:
    """The character that is read if there is no prompt: a line feed if the text has lines, else its first held-out character.

    A byte order mark, which is not read, is none; without any other, it is the first one of the vocabulary.
    """
    tokens = run.vocabulary().tokens
    return "\n" if "\n" in tokens else next((c for c in (*run.held_out(), *tokens[1:]) if c != BYTE_ORDER_MARK), "")


def read_weights(model: keras.Model, config: Config) -> Weights:
    """The weights of a Keras model from `trainer.model.build_model`, for the step graph."""
    from ..trainer.model import EMBEDDING, LOGITS, RECURRENT, layer_weights

    layers = []
    for i in range(config.layers):
        kernel, recurrent_kernel, bias = layer_weights(model, RECURRENT.format(i))
        input_bias, recurrent_bias = bias if config.cell == "gru" else (bias, None)
        layers.append(Layer(kernel, recurrent_kernel, input_bias, recurrent_bias))
    (embedding,) = layer_weights(model, EMBEDDING)
    output_kernel, output_bias = layer_weights(model, LOGITS)
    return Weights(config.cell, embedding, tuple(layers), output_kernel, output_bias)


def training_record(run: Run, config: Config) -> dict[str, object]:
    """The manifest's record of the training; it has the names of the corpus files, not their folders.

    Args:
        run: the run.
        config: its configuration.
    """
    history = run.history()
    kept = kept_epoch(config, history)
    return {
        "corpus": {
            "files": [Path(file).name for file in config.corpus["files"][:MAX_NAMED_FILES]],
            "characters": config.corpus["characters"],
            "sha256": config.corpus["sha256"],
        },
        "recipe": _recipe(config),
        "epochs": len(history),
        "train_nats_per_character": kept.train_nats_per_character if kept else None,
        "validation_nats_per_character": kept.validation_nats_per_character if kept else None,
    }


def _recipe(config: Config) -> dict[str, object]:
    """The recipe of a training; it has the names of other runs, not their folders."""
    recorded: dict[str, object] = recipe(config)
    if config.quantization_aware:
        recorded["quantization_aware"] = config.quantization_aware
    if config.initialized_from:
        recorded["initialized_from"] = Path(config.initialized_from).name
    if config.teachers:
        recorded |= {"teachers": [Path(path).name for path in config.teachers], "teacher_weight": config.teacher_weight}
    return recorded
