"""From a run folder to a model file: what the trainer left, read with Keras, and handed to the assembly."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import keras
import tensorflow as tf

from ..runtime.errors import CharedgeError
from ..trainer.evaluation import chunk_loss, evaluate_ids
from ..trainer.model import EMBEDDING, LOGITS, RECURRENT, layer_weights, load_model
from ..trainer.run import Config, Run
from .assembly import Assembled, Source, assemble
from .step import Layer, Weights

VERIFIED_CHARACTERS = 20_000
MAX_NAMED_FILES = 1000  # of the corpus: a manifest has its bounds


def convert_run(
    run: Run,
    quantization: str,
    name: str | None = None,
    author: str = "unspecified",
    license: str = "unspecified",
    progress: Callable[[str], None] = lambda _: None,
) -> Assembled:
    """Convert a run's best weights and measure the file on the run's held-out text.

    Args:
        run: the run folder.
        quantization: a name in `PROFILES`.
        name: what the model is called; by default as the folder is.
        author: who made it.
        license: its licence.
        progress: told what is being done.

    Raises:
        CharedgeError: the run is not whole, or its parts disagree.
    """
    tf.config.experimental.enable_op_determinism()  # the same run gives the same figures, and so the same bytes
    config, vocabulary = run.config(), run.vocabulary()
    progress(f"reading {run.path}")
    model = load_model(run)
    weights = read_weights(model, config)
    held_out = run.held_out()[:VERIFIED_CHARACTERS]
    if len(held_out) < 2:
        raise CharedgeError(f"{run.path} has no held-out text to verify with: copy the run folder again.")
    ids = vocabulary.encode(held_out)
    progress(f"verifying over {len(ids):,} held-out characters")
    reference = evaluate_ids(chunk_loss(model), weights.state_size, ids)
    source = Source(
        name=name or run.path.resolve().name,
        author=author,
        license=license,
        created=config.ended or "",
        normalization=config.normalization,
        unknown=config.unknown,
        start_text="\n" if "\n" in vocabulary.tokens else held_out[0],
        training=_training(run, config),
    )
    return assemble(weights, vocabulary, source, quantization, ids, reference)


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


def _training(run: Run, config: Config) -> dict[str, object]:
    """What the manifest tells of the training; of the corpus' files only the names, not where they lay."""
    history = run.history()
    best = min(history, key=lambda epoch: epoch.validation_nats_per_character, default=None)
    return {
        "corpus": {
            "files": [Path(file).name for file in config.corpus["files"][:MAX_NAMED_FILES]],
            "characters": config.corpus["characters"],
            "sha256": config.corpus["sha256"],
        },
        "epochs": len(history),
        "train_nats_per_character": best.train_nats_per_character if best else None,
        "validation_nats_per_character": best.validation_nats_per_character if best else None,
    }
