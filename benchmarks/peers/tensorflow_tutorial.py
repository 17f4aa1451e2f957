"""The one-step model of TensorFlow's text generation tutorial: strings in, strings out, everything between them in one function."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf
from charedge.converter.step import Weights
from charedge.runtime.vocabulary import UNKNOWN_ID
from random_models import VOCABULARY, random_weights
from step_loop import START, TEMPERATURE, Loop


class OneStep(tf.Module):
    """The next character after a text, and the state after that text."""

    def __init__(self, weights: Weights) -> None:
        super().__init__()
        characters = list(VOCABULARY.tokens[1:])  # the lookups put [UNK] before them
        self.to_ids = keras.layers.StringLookup(vocabulary=characters)
        self.to_characters = keras.layers.StringLookup(vocabulary=characters, invert=True)
        self.mask = tf.one_hot(UNKNOWN_ID, weights.vocabulary_size, on_value=-float("inf"), off_value=0.0)
        self.embedding = keras.layers.Embedding(*weights.embedding.shape)
        self.gru = keras.layers.GRU(weights.units, return_sequences=True, return_state=True)
        self.dense = keras.layers.Dense(weights.vocabulary_size)
        self(tf.constant([START]), tf.zeros([1, weights.units]))  # builds the layers
        (layer,) = weights.layers
        assert layer.recurrent_bias is not None, "the peers run GRUs"
        self.embedding.set_weights([weights.embedding])
        self.gru.set_weights([layer.kernel, layer.recurrent_kernel, np.stack([layer.input_bias, layer.recurrent_bias])])
        self.dense.set_weights([weights.output_kernel, weights.output_bias])

    @tf.function
    def __call__(self, texts: tf.Tensor, state: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        ids = self.to_ids(tf.strings.unicode_split(texts, "UTF-8")).to_tensor()  # [rows, characters]
        outputs, state = self.gru(self.embedding(ids), initial_state=state)
        logits = self.dense(outputs)[:, -1] / TEMPERATURE + self.mask  # [rows, V]
        drawn = tf.random.categorical(logits, num_samples=1)[:, 0]
        return self.to_characters(drawn), state


def loops(units: int) -> dict[str, Loop]:
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    step = OneStep(random_weights(units))

    def loop(characters: int) -> str:
        piece, state = tf.constant([START]), tf.zeros([1, units])
        pieces = []
        for _ in range(characters):
            piece, state = step(piece, state)
            pieces.append(piece)
        return tf.strings.join(pieces)[0].numpy().decode()

    return {"TensorFlow tutorial": loop}
