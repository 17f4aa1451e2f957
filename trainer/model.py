"""The Keras model, from tokens and a state to logits and the next state: built, saved, loaded."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ..runtime.errors import CharedgeError
from ..runtime.files import partial_folder, write_atomically
from ..runtime.manifest import STATES_PER_LAYER
from ..runtime.vocabulary import Vocabulary
from .config import GATES, Cell, Config
from .run import Run

EMBEDDING, RECURRENT, LOGITS = "embedding", "recurrent_{}", "logits"
LAYERS: dict[str, Any] = {"gru": keras.layers.GRU, "lstm": keras.layers.LSTM, "dropout": keras.layers.Dropout}
CPU = "CPU:0"
"""Device for the model of a finished run: a GPU may round products to TF32."""


def state_size(cell: Cell, layers: int, units: int) -> int:
    """S, the size of all layers' states side by side, in layer order (GRU: h; LSTM: h then c)."""
    return STATES_PER_LAYER[cell] * layers * units


def build_model(
    vocabulary_size: int, config: Config, dtype: str = "float32", cudnn: bool | str = "auto", layers: Mapping[str, Any] = LAYERS
) -> keras.Model:
    """Build the model: Embedding -> recurrent layers -> Dense. With the default layers plain Keras can load its file.

    Args:
        vocabulary_size: V.
        config: the shape and the dropout rates.
        dtype: a Keras dtype policy; the logits are float32 with any.
        cudnn: Keras' `use_cudnn`; True on a GPU, so that Keras cannot fall back to its own loop in silence.
        layers: layer classes by name: `gru`, `lstm`, `dropout`.

    Returns:
        A model from {"tokens": int32 [B, T], "state": float32 [B, S]} to {"logits": float32 [B, T, V], "state": [B, S]}.
    """
    size, per_layer = state_size(config.cell, config.layers, config.units), STATES_PER_LAYER[config.cell]
    tokens = keras.Input((None,), dtype="int32", name="tokens")
    state = keras.Input((size,), dtype="float32", name="state")
    parts: Any = keras.ops.split(state, size // config.units, axis=1) if size > config.units else [state]  # each [B, units]
    x = keras.layers.Embedding(vocabulary_size, config.embedding_dim, dtype=dtype, name=EMBEDDING)(tokens)  # [B, T, embedding_dim]
    x = _dropped(x, layers["dropout"], config.embedding_dropout, dtype, "embedding_dropout")
    after = []
    for i in range(config.layers):
        options: dict[str, Any] = {"use_cudnn": cudnn, "dtype": dtype, "name": RECURRENT.format(i)}
        layer = layers[config.cell](config.units, return_sequences=True, return_state=True, **options)
        x, *states = layer(x, initial_state=parts[i * per_layer : (i + 1) * per_layer])  # x [B, T, units]
        after += states
        last = i == config.layers - 1 and config.output_dropout is not None
        x = _dropped(x, layers["dropout"], config.output_dropout if last else config.dropout, dtype, f"dropout_{i}")
    logits = keras.layers.Dense(vocabulary_size, dtype="float32", name=LOGITS)(x)  # [B, T, V]
    state_after = keras.ops.concatenate(after, axis=1) if len(after) > 1 else after[0]
    return keras.Model({"tokens": tokens, "state": state}, {"logits": logits, "state": state_after}, name="charedge")


def _dropped(x: Any, layer: Any, rate: float | None, dtype: str, name: str) -> Any:
    return layer(rate, dtype=dtype, name=name)(x) if rate else x


def weight_shapes(vocabulary_size: int, config: Config) -> list[tuple[int, ...]]:
    """Shapes of the weights of `build_model`, in its order."""
    shapes: list[tuple[int, ...]] = [(vocabulary_size, config.embedding_dim)]
    for i in range(config.layers):
        inputs, columns = config.units if i else config.embedding_dim, GATES[config.cell] * config.units
        shapes += [(inputs, columns), (config.units, columns), (2, columns) if config.cell == "gru" else (columns,)]
    return [*shapes, (config.units, vocabulary_size), (vocabulary_size,)]


def save_model(weights: Sequence[np.ndarray], vocabulary_size: int, config: Config, path: Path) -> None:
    """Save weights as a float32 model that plain Keras can load on any machine.

    Args:
        weights: in the order of `build_model`.
        vocabulary_size: V.
        config: the shape.
        path: the `.keras` file.

    Raises:
        OSError: the file cannot be written; an existing file is kept.
    """
    model = build_model(vocabulary_size, config)
    model.set_weights(list(weights))
    with partial_folder(path.parent) as folder:  # Keras would write through a link
        model.save(folder / path.name)
        write_atomically(path, (folder / path.name).read_bytes())


def load_model(run: Run, layers: Mapping[str, Any] = LAYERS) -> keras.Model:
    """Load the best weights of a run into a float32 model on the CPU.

    Args:
        run: the run folder.
        layers: as for `build_model`.

    Raises:
        CharedgeError: the run has no weights yet, or the file is damaged or does not match config.json.
    """
    config, vocabulary = run.config(), run.vocabulary()
    if not run.model.exists():
        raise CharedgeError(f"{run.path} has no {run.model.name}: resume the training, which writes it.")
    try:
        with tf.device(CPU):
            trained: Any = keras.saving.load_model(run.model, compile=False)
    except Exception as error:  # Keras raises whatever the broken part raised
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise CharedgeError(f"{run.model} cannot be loaded ({reason}): copy it again, or train again.") from None
    if [w.shape for w in trained.get_weights()] != weight_shapes(len(vocabulary), config):  # before memory is allocated for them
        raise CharedgeError(f"{run.path} disagrees with itself (vocabulary.txt, config.json and {run.model.name}): train again.")
    with tf.device(CPU):  # cuDNN's operators exist only on a GPU and would be placed there
        model = build_model(len(vocabulary), config, cudnn=False, layers=layers)
        model.set_weights(trained.get_weights())
    return model


def transferred_weights(trained: Sequence[np.ndarray], config: Config, old: Vocabulary, new: Vocabulary) -> list[np.ndarray]:
    """Transfer a model's weights to another vocabulary.

    Args:
        trained: the weights with `old`, in the order of `build_model`.
        config: the shape.
        old: the model's vocabulary, V tokens.
        new: the vocabulary of the returned weights, W tokens.

    Returns:
        Weights with the shapes `weight_shapes(W, config)`. Rows of tokens in both vocabularies are kept; others are random, by the
        training's seed.
    """
    keras.utils.set_random_seed(config.seed)
    weights = [np.array(weight) for weight in build_model(len(new), config).get_weights()]
    known = {token: i for i, token in enumerate(old.tokens)}
    pairs = np.array([(i, known[token]) for i, token in enumerate(new.tokens) if token in known])
    here, there = pairs.T
    weights[0][here] = trained[0][there]
    weights[1:-2] = trained[1:-2]
    weights[-2][:, here], weights[-1][here] = trained[-2][:, there], trained[-1][there]
    return weights


def weights_sha256(model: keras.Model) -> str:
    """SHA-256 of a model's weights: shapes and float32 values, independent of the file format."""
    digest = hashlib.sha256()
    for weight in model.get_weights():
        digest.update(repr(weight.shape).encode() + np.ascontiguousarray(weight, np.float32).tobytes())
    return digest.hexdigest()


def layer_weights(model: keras.Model, name: str) -> list[np.ndarray]:
    """Weights of a layer by its name, as float32 arrays."""
    return [np.asarray(keras.ops.convert_to_numpy(w), np.float32) for w in model.get_layer(name).weights]
