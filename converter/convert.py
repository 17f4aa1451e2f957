"""From a run folder to a model file: what the trainer left, read with Keras, and handed to the assembly."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path

import keras

from ..runtime.cli import say
from ..runtime.errors import CharedgeError
from ..runtime.vocabulary import UNKNOWN_ID, Vocabulary
from ..trainer.accelerators import hide_gpus
from ..trainer.bars import Bars
from ..trainer.fast_recurrence import FAST_LAYERS
from ..trainer.logits import read_text
from ..trainer.model import EMBEDDING, LOGITS, RECURRENT, layer_weights, load_model
from ..trainer.run import Config, Run
from .build import Built, build_model_files
from .description import Description
from .step import Layer, Weights
from .temperature import calibrate

VERIFIED_CHARACTERS = 20_000
RECIPE = (
    *("preset", "batching", "sequence_length", "batch_size", "learning_rate", "learning_rate_decay", "warmup", "clip_norm"),
    *("dropout", "output_dropout", "embedding_dropout", "weight_drop", "weight_decay", "average", "quantization_aware"),
    *("validation_split", "precision", "seed"),
)
"""What the manifest tells of how a model was trained, where it is not off."""
MAX_NAMED_FILES = 1000  # of the corpus: a manifest has its bounds


def convert_run(
    run: Run,
    quantizations: Sequence[str],
    name: str | None = None,
    author: str = "unspecified",
    license: str = "unspecified",
    notes: str = "",
    fit_temperature: bool = False,
) -> list[Built]:
    """Convert a run's best weights and measure the files on the run's held-out text; on stderr it is said what is being done.

    Args:
        run: the run folder.
        quantizations: names in `PROFILES`.
        name: what the model is called; by default as the folder is.
        author: who made it.
        license: its licence.
        notes: what it writes and where its limits are.
        fit_temperature: whether the logits are divided by the temperature that predicts the held-out text best.

    Raises:
        CharedgeError: the run is not whole, or its parts disagree.
    """
    config, vocabulary = run.config(), run.vocabulary()
    say(f"reading {run.path}")
    hide_gpus()
    model = load_model(run, FAST_LAYERS)
    temperature = calibrate(model, run) if fit_temperature else None
    weights = read_weights(model, config)
    held_out = run.held_out()[:VERIFIED_CHARACTERS]
    if len(held_out) < 2:
        raise CharedgeError(f"{run.path} has no held-out text to verify with: copy the run folder again.")
    ids = vocabulary.encode(held_out)
    if UNKNOWN_ID in ids and config.unknown == "skip":
        raise CharedgeError(f"{run.path} disagrees with itself (vocabulary.txt and held_out.txt): copy the run folder again.")
    # Weights that were trained to be rounded lie where they should: what GPTQ does for others makes them worse.
    rounds = "int4" in quantizations and not config.quantization_aware
    calibration = vocabulary.encode(run.calibration()) if rounds else None
    if calibration is not None and (len(calibration) < 2 or (UNKNOWN_ID in calibration and config.unknown == "skip")):
        raise CharedgeError(f"{run.path} disagrees with itself (vocabulary.txt and calibration.txt): copy the run folder again.")
    description = Description(
        name=name or os.fsencode(run.path.resolve().name).decode(errors="replace"),
        author=author,
        license=license,
        notes=notes,
        created=config.ended or "",
        normalization=config.normalization,
        unknown=config.unknown,
        start_text=start_text(vocabulary, held_out),
        training={**({"notes": notes} if notes else {}), **_training(run, config, temperature)},
    )
    say(f"converting to {', '.join(quantizations)}")
    reference = read_text(model, ids)
    with Bars() as bars:
        return build_model_files(weights, vocabulary, description, quantizations, ids, reference, calibration, bars.show)


def start_text(vocabulary: Vocabulary, held_out: str) -> str:
    """What is fed where there is no prompt: the beginning of a line, if the text has lines."""
    return "\n" if "\n" in vocabulary.tokens else held_out[0]


def read_weights(model: keras.Model, config: Config) -> Weights:
    """The weights of a Keras model made by `trainer.model.build_model`, as the step graph wants them."""
    layers = []
    for i in range(config.layers):
        kernel, recurrent_kernel, bias = layer_weights(model, RECURRENT.format(i))
        input_bias, recurrent_bias = bias if config.cell == "gru" else (bias, None)
        layers.append(Layer(kernel, recurrent_kernel, input_bias, recurrent_bias))
    (embedding,) = layer_weights(model, EMBEDDING)
    output_kernel, output_bias = layer_weights(model, LOGITS)
    return Weights(config.cell, embedding, tuple(layers), output_kernel, output_bias)


def _recipe(config: Config) -> dict[str, object]:
    """How a model was trained; of other runs only the names, not where they lay."""
    recipe = {name: value for name in RECIPE if (value := getattr(config, name))}
    if config.initialized_from:
        recipe["initialized_from"] = Path(config.initialized_from).name
    if config.teachers:
        recipe |= {"teachers": [Path(path).name for path in config.teachers], "teacher_weight": config.teacher_weight}
    return recipe


def _training(run: Run, config: Config, temperature: float | None) -> dict[str, object]:
    """What the manifest tells of the training; of the corpus' files only the names, not where they lay."""
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
