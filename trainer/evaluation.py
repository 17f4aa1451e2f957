"""How well a Keras model predicts a text, by one of three protocols that figures elsewhere were measured with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from ..runtime.errors import CharedgeError
from .dataset import Ids
from .model import LOGITS

Chunk = Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]
Told = Callable[[int, int], object]
"""Called with the windows done and how many there are."""


@dataclass(frozen=True)
class Evaluation:
    """What a model makes of a text by some protocol."""

    nats_per_character: float
    predictions: int
    """The characters that the mean is over."""


def _untold(done: int, total: int) -> None:
    pass


def evaluate_by(
    protocol: str, model: keras.Model, state_size: int, ids: Ids, window: int | None = None, stride: int = 1, told: Told = _untold
) -> Evaluation:
    """Nats per character by a protocol: `carried`, `windows` of 256 or another number, or `last-character` of windows of 100."""
    if protocol == "last-character":
        return evaluate_last_character(model, state_size, ids, window or 100, stride=stride, told=told)
    if protocol == "windows":
        return evaluate_windows(chunk_loss(model), state_size, ids, window or 256, told=told)
    return Evaluation(evaluate_ids(chunk_loss(model), state_size, ids), len(ids) - 1)


def chunk_loss(model: keras.Model) -> Chunk:
    """A compiled function (tokens [B, T], targets [B, T], state [B, S]) -> (sum of nats, the state after)."""

    @tf.function(reduce_retracing=True)
    def chunk(tokens: tf.Tensor, targets: tf.Tensor, state: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        outputs = model({"tokens": tokens, "state": state}, training=False)
        nats = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=targets, logits=outputs["logits"])
        return tf.reduce_sum(nats), tf.cast(outputs["state"], tf.float32)

    return chunk


def evaluate_ids(chunk: Chunk, state_size: int, ids: Ids, streams: int = 1, length: int = 500) -> float:
    """Nats per character of a token sequence, the state carried through it.

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
    starts = np.arange(streams) * per_stream
    state, total = tf.zeros((streams, state_size)), 0.0
    for first in range(0, per_stream, length):
        part = _windows(ids, starts + first, min(length, per_stream - first))
        nats, state = chunk(part[:, :-1], part[:, 1:], state)
        total += float(nats)
    return total / (per_stream * streams)


def evaluate_windows(
    chunk: Chunk, state_size: int, ids: Ids, window: int = 256, batch: int = 64, told: Told = _untold
) -> Evaluation:
    """Every position of consecutive windows, each from a zero state, as nanoGPT's blocks (Karpathy 2022, `block_size` 256).

    Args:
        chunk: from `chunk_loss`.
        state_size: S.
        ids: int [n], n at least 2.
        window: the inputs, and so the predictions, of a window. What fills none at the end is not read; a text that is shorter
            is one window.
        batch: windows read side by side.
        told: is told how far it is.
    """
    length = min(window, len(ids) - 1)
    starts = np.arange((len(ids) - 1) // length) * length
    total = 0.0
    for first in range(0, len(starts), batch):
        part = _windows(ids, starts[first : first + batch], length)
        nats, _ = chunk(part[:, :-1], part[:, 1:], tf.zeros((len(part), state_size)))
        total += float(nats)
        told(first + len(part), len(starts))
    return Evaluation(total / (len(starts) * length), len(starts) * length)


def evaluate_last_character(
    model: keras.Model, state_size: int, ids: Ids, window: int = 100, batch: int = 256, stride: int = 1, told: Told = _untold
) -> Evaluation:
    """The one character after each of the overlapping windows, each from a zero state: charRNN's objective.

    A window costs as many steps as it is long, for one prediction: `window` times the work of the other protocols.

    Args:
        model: from `build_model`.
        state_size: S.
        ids: int [n]; n - `window` predictions with a stride of 1.
        window: the inputs before a prediction.
        batch: windows read side by side.
        stride: how far a window begins after the one before.
        told: is told how far it is.

    Raises:
        CharedgeError: the text is no longer than a window.
    """
    starts = np.arange(0, len(ids) - window, stride)
    if not len(starts):
        raise CharedgeError(
            f"the text has {len(ids)} characters that the model knows, and --window {window} needs {window + 1}: "
            "give a longer text or a smaller --window."
        )
    last_loss = _last_loss(model)
    total = 0.0
    for first in range(0, len(starts), batch):
        part = _windows(ids, starts[first : first + batch], window)
        total += float(last_loss(part[:, :-1], part[:, -1], tf.zeros((len(part), state_size))))
        told(first + len(part), len(starts))
    return Evaluation(total / len(starts), len(starts))


def _last_loss(model: keras.Model) -> Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]:
    """A compiled function (tokens [B, T], targets [B], state [B, S]) -> sum of nats, without the logits of other positions."""
    logits = model.get_layer(LOGITS)
    recurrent = keras.Model(model.input, logits.input)

    @tf.function(reduce_retracing=True)
    def last_loss(tokens: tf.Tensor, targets: tf.Tensor, state: tf.Tensor) -> tf.Tensor:
        hidden = recurrent({"tokens": tokens, "state": state}, training=False)[:, -1]  # [B, units]
        return tf.reduce_sum(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=targets, logits=logits(hidden)))

    return last_loss


def _windows(ids: Ids, starts: np.ndarray, length: int) -> tf.Tensor:
    """The inputs of windows and the target after each: int32 [windows, length + 1]."""
    return tf.constant(ids[starts[:, None] + np.arange(length + 1)], tf.int32)
