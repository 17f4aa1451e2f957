"""The model of TensorFlow's text generation tutorial, trained as it is there: `compile` with Adam, then `fit`."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf
from training import BATCH_SIZE, EMBEDDING_DIM, FIT, VOCABULARY_SIZE, Steps, random_windows


class Model(keras.Model):
    """Token ids [B, T] -> logits [B, T, V]."""

    def __init__(self, units: int, layers: int = 1) -> None:
        super().__init__()
        self.embedding = keras.layers.Embedding(VOCABULARY_SIZE, EMBEDDING_DIM)
        self.below = [keras.layers.GRU(units, return_sequences=True) for _ in range(layers - 1)]  # the tutorial has none
        self.gru = keras.layers.GRU(units, return_sequences=True, return_state=True)
        self.dense = keras.layers.Dense(VOCABULARY_SIZE, dtype="float32")

    def call(self, inputs: Any, states: Any = None, return_state: bool = False, training: bool = False) -> Any:
        x = self.embedding(inputs, training=training)
        for layer in self.below:
            x = layer(x, training=training)
        if states is None:
            states = self.gru.get_initial_state(tf.shape(x)[0])
        x, states = self.gru(x, initial_state=states, training=training)
        x = self.dense(x, training=training)
        return (x, states) if return_state else x


def loops(units: int, layers: int = 1, precision: str = "float32") -> dict[str, Steps]:
    """
    Args:
        units: of each layer.
        layers: recurrent ones.
        precision: a Keras dtype policy; with mixed_float16 Keras scales the loss by itself.
    """
    keras.config.set_dtype_policy(precision)
    windows = random_windows(BATCH_SIZE)
    batches = tf.data.Dataset.from_tensors((windows[:, :-1], windows[:, 1:])).repeat().prefetch(tf.data.AUTOTUNE)
    model = Model(units, layers)
    model.compile(optimizer="adam", loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    silent: Any = 0  # Keras' annotations allow strings alone
    return {FIT: lambda steps: model.fit(batches, steps_per_epoch=steps, shuffle=False, verbose=silent)}
