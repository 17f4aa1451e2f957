"""What a conversion reads of a run folder: the weights, the texts as ids, and what the manifest records of the training."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..runtime.errors import CharedgeError
from ..runtime.vocabulary import UNKNOWN_ID
from ..trainer.config import Config, recipe
from ..trainer.run import Run
from .step import Layer, Weights

if TYPE_CHECKING:
    import keras

MAX_NAMED_FILES = 1000  # of the corpus: a manifest has its bounds


def held_out_ids(run: Run, most: int) -> np.ndarray:
    """The beginning of the text that a run held out from training.

    Args:
        run: the run.
        most: characters to read at most.

    Returns:
        int32 [n], n from 2 to `most`.

    Raises:
        CharedgeError: there is no such text, or its characters are not those of the run.
    """
    return _ids(run, run.held_out()[:most], "held_out.txt")


def calibration_ids(run: Run) -> np.ndarray:
    """The end of the text that a run was trained on, int32 [n], n at least 2.

    Raises:
        CharedgeError: there is no such text, or its characters are not those of the run.
    """
    return _ids(run, run.calibration(), "calibration.txt")


def _ids(run: Run, text: str, name: str) -> np.ndarray:
    if len(text) < 2:
        raise CharedgeError(f"{run.path} has no text in its {name}, which is read to measure: copy the run folder again.")
    ids = run.vocabulary().encode(text)
    if UNKNOWN_ID in ids and run.config().unknown == "skip":
        raise CharedgeError(f"{run.path} disagrees with itself (vocabulary.txt and {name}): copy the run folder again.")
    return ids


def start_text(run: Run) -> str:
    """What is fed where there is no prompt: the beginning of a line, if the text has lines; one character."""
    return "\n" if "\n" in run.vocabulary().tokens else run.held_out()[0]


def read_weights(model: keras.Model, config: Config) -> Weights:
    """The weights of a Keras model made by `trainer.model.build_model`, as the step graph wants them."""
    from ..trainer.model import EMBEDDING, LOGITS, RECURRENT, layer_weights

    layers = []
    for i in range(config.layers):
        kernel, recurrent_kernel, bias = layer_weights(model, RECURRENT.format(i))
        input_bias, recurrent_bias = bias if config.cell == "gru" else (bias, None)
        layers.append(Layer(kernel, recurrent_kernel, input_bias, recurrent_bias))
    (embedding,) = layer_weights(model, EMBEDDING)
    output_kernel, output_bias = layer_weights(model, LOGITS)
    return Weights(config.cell, embedding, tuple(layers), output_kernel, output_bias)


def training_record(run: Run, config: Config, temperature: float | None) -> dict[str, object]:
    """What the manifest records of the training; of the corpus' files only the names, not where they lay.

    Args:
        run: the run.
        config: its configuration.
        temperature: what the logits were divided by, if they were.
    """
    history = run.history()
    finite = [epoch for epoch in history if math.isfinite(epoch.validation_nats_per_character)]
    best = min(finite, key=lambda epoch: epoch.validation_nats_per_character, default=None)
    return {
        "corpus": {
            "files": [Path(file).name for file in config.corpus["files"][:MAX_NAMED_FILES]],
            "characters": config.corpus["characters"],
            "sha256": config.corpus["sha256"],
        },
        "recipe": _recipe(config),
        **({} if temperature is None else {"logits_divided_by": temperature}),
        "epochs": len(history),
        "train_nats_per_character": best.train_nats_per_character if best else None,
        "validation_nats_per_character": best.validation_nats_per_character if best else None,
    }


def _recipe(config: Config) -> dict[str, object]:
    """How a model was trained; of other runs only the names, not where they lay."""
    recorded: dict[str, object] = recipe(config)
    if config.quantization_aware:
        recorded["quantization_aware"] = config.quantization_aware
    if config.initialized_from:
        recorded["initialized_from"] = Path(config.initialized_from).name
    if config.teachers:
        recorded |= {"teachers": [Path(path).name for path in config.teachers], "teacher_weight": config.teacher_weight}
    return recorded
