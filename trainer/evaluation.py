"""How well a Keras model predicts a text: nats per character with the state carried through it."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

Chunk = Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]


def chunk_loss(model: keras.Model) -> Chunk:
    """A compiled function (tokens [B, T], targets [B, T], state [B, S]) -> (sum of nats, the state after)."""

    @tf.function(reduce_retracing=True)
    def chunk(tokens: tf.Tensor, targets: tf.Tensor, state: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        outputs = model({"tokens": tokens, "state": state}, training=False)
        nats = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=targets, logits=outputs["logits"])
        return tf.reduce_sum(nats), tf.cast(outputs["state"], tf.float32)

    return chunk


def evaluate_ids(chunk: Chunk, state_size: int, ids: np.ndarray, streams: int = 1, length: int = 500) -> float:
    """Nats per character of a token sequence.

    Args:
        chunk: from `chunk_loss`.
        state_size: S.
        ids: int [n], n at least 2.
        streams: 1 carries the state from the first character to the last; more cut the text into that many parts of equal
            length that are read side by side, each from a zero state, which is faster and a little pessimistic (what is left
            over at the end, fewer characters than streams, is not read).
        length: how many characters a call reads.
    """
    per_stream = (len(ids) - 1) // streams
    starts = np.arange(streams)[:, None] * per_stream
    state, total = tf.zeros((streams, state_size)), 0.0
    for first in range(0, per_stream, length):
        place = starts + np.arange(first, min(first + length, per_stream))
        nats, state = chunk(tf.constant(ids[place], tf.int32), tf.constant(ids[place + 1], tf.int32), state)
        total += float(nats)
    return total / (per_stream * streams)
