"""The network in Keras: tokens and the state before them -> logits and the state after them."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from ..runtime.errors import CharedgeError
from ..runtime.package import STATES_PER_LAYER
from .run import Cell, Config, Run

EMBEDDING, RECURRENT, LOGITS = "embedding", "recurrent_{}", "logits"
LAYERS = {"gru": keras.layers.GRU, "lstm": keras.layers.LSTM}
GATES = {"gru": 3, "lstm": 4}


def state_size(cell: Cell, layers: int, units: int) -> int:
    """S: every layer's state side by side, in layer order (GRU: h; LSTM: h then c)."""
    return STATES_PER_LAYER[cell] * layers * units


def build_model(vocabulary_size: int, cell: Cell, layers: int, units: int, embedding_dim: int, dropout: float) -> keras.Model:
    """Embedding -> recurrent layers -> Dense, in Keras' own layers alone, so that plain Keras can load the file.

    Returns:
        A model from {"tokens": int32 [B, T], "state": float32 [B, S]} to {"logits": float32 [B, T, V], "state": [B, S]}.
    """
    size = state_size(cell, layers, units)
    tokens = keras.Input((None,), dtype="int32", name="tokens")
    state = keras.Input((size,), dtype="float32", name="state")
    parts: Any = keras.ops.split(state, size // units, axis=1) if size > units else [state]  # each [B, units]
    x = keras.layers.Embedding(vocabulary_size, embedding_dim, name=EMBEDDING)(tokens)  # [B, T, embedding_dim]
    after = []
    for i in range(layers):
        before = parts[i * STATES_PER_LAYER[cell] : (i + 1) * STATES_PER_LAYER[cell]]
        layer = LAYERS[cell](units, return_sequences=True, return_state=True, name=RECURRENT.format(i))
        x, *states = layer(x, initial_state=before)  # x [B, T, units]
        after += states
        if dropout:
            x = keras.layers.Dropout(dropout, name=f"dropout_{i}")(x)
    logits = keras.layers.Dense(vocabulary_size, dtype="float32", name=LOGITS)(x)  # [B, T, V]
    state_after = keras.ops.concatenate(after, axis=1) if len(after) > 1 else after[0]
    return keras.Model({"tokens": tokens, "state": state}, {"logits": logits, "state": state_after}, name="charedge")


def weight_shapes(vocabulary_size: int, config: Config) -> list[tuple[int, ...]]:
    """Of the weights of `build_model`, in its order."""
    shapes: list[tuple[int, ...]] = [(vocabulary_size, config.embedding_dim)]
    for i in range(config.layers):
        inputs, columns = config.units if i else config.embedding_dim, GATES[config.cell] * config.units
        shapes += [(inputs, columns), (config.units, columns), (2, columns) if config.cell == "gru" else (columns,)]
    return [*shapes, (config.units, vocabulary_size), (vocabulary_size,)]


def load_model(run: Run) -> keras.Model:
    """The best weights of a run, in a model that computes in float32 whatever they were trained in.

    Raises:
        CharedgeError: the run has none yet, or the file is damaged or of another shape than the configuration says.
    """
    config, vocabulary = run.config(), run.vocabulary()
    if not run.model.exists():
        raise CharedgeError(f"{run.path} has no {run.model.name} yet: let `charedge train --resume` finish an epoch.")
    try:
        trained: Any = keras.saving.load_model(run.model, compile=False)
    except Exception as error:  # Keras raises whatever the broken part raised
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise CharedgeError(f"{run.model} cannot be loaded ({reason}): copy it again, or train again.") from None
    if [w.shape for w in trained.get_weights()] != weight_shapes(len(vocabulary), config):  # before memory is taken for them
        raise CharedgeError(f"{run.path} disagrees with itself (vocabulary.txt, config.json and {run.model.name}): train again.")
    keras.config.set_dtype_policy("float32")
    model = build_model(len(vocabulary), config.cell, config.layers, config.units, config.embedding_dim, config.dropout)
    model.set_weights(trained.get_weights())
    return model


def layer_weights(model: keras.Model, name: str) -> list[np.ndarray]:
    """A layer's weights as float32 arrays."""
    return [np.asarray(keras.ops.convert_to_numpy(w), np.float32) for w in model.get_layer(name).weights]
