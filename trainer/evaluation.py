"""How well a Keras model predicts a text, by one of three protocols that figures elsewhere were measured with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from ..runtime.errors import CharedgeError
from ..runtime.progress import Progress, Report, no_progress
from ..runtime.scoring import nats_of
from .dataset import Ids
from .logits import Reader, compile_reader, read_text, state_size_of, stream_chunks, windows
from .model import CPU

Chunk = Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]
WINDOWS = {"windows": 256, "last-character": 100}
"""Characters of a window by default."""
NATS_AT_ONCE = 1_000_000  # logits whose float64 copy is taken


@dataclass(frozen=True)
class MeanLoss:
    """The mean cross-entropy of a model over a text, by some protocol."""

    nats_per_character: float
    predictions: int
    """The characters that the mean is over."""


def evaluate_by(
    protocol: str,
    model: keras.Model,
    ids: Ids,
    window: int | None = None,
    stride: int = 1,
    progress: Progress = no_progress,
) -> MeanLoss:
    """Nats per character by a protocol, computed on the CPU.

    Args:
        protocol: `carried`, `windows` or `last-character`.
        model: from `load_model`.
        ids: int [n], n at least 2.
        window: characters of a window; by default 256, or 100 for `last-character`.
        stride: how far a `last-character` window begins after the one before.
        progress: gets the characters (`carried`) or windows done.

    Raises:
        CharedgeError: the text is no longer than a `last-character` window.
    """
    if protocol == "carried":
        return evaluate_text(model, ids, progress)
    size, last = state_size_of(model), protocol == "last-character"
    with tf.device(CPU):
        read = compile_reader(model, CPU, last=last)
        if last:
            return evaluate_last_character(read, size, ids, window or WINDOWS[protocol], stride=stride, progress=progress)
        return evaluate_windows(chunk_loss(read), size, ids, window or WINDOWS[protocol], progress=progress)


def evaluate_text(model: keras.Model, ids: Ids, progress: Progress = no_progress) -> MeanLoss:
    """Every character of a text but the first, the state carried from the first to the last, as `charedge score` counts.

    Args:
        model: from `load_model`.
        ids: int [n], n at least 2.
        progress: gets the characters read.
    """
    total, position = 0.0, 0
    for logits in read_text(model, ids, progress, "evaluating"):
        rows = max(1, NATS_AT_ONCE // logits.shape[1])
        for part in (logits[start : start + rows] for start in range(0, len(logits), rows)):
            total += float(nats_of(part, np.asarray(ids[position + 1 : position + 1 + len(part)])).sum())
            position += len(part)
    return MeanLoss(total / position, position)


def chunk_loss(read: Reader) -> Chunk:
    """A compiled function (tokens [B, T], targets [B, T], state [B, S]) -> (sum of nats float64, the state after).

    The logits stay in the graph.
    """

    @tf.function(reduce_retracing=True)
    def chunk(tokens: tf.Tensor, targets: tf.Tensor, state: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        logits, state = read(tokens, state)
        return _nats(logits, targets), state

    return chunk


def _nats(logits: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
    """The sum of the cross-entropies, float64."""
    nats = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=targets, logits=logits)
    return tf.reduce_sum(tf.cast(nats, tf.float64))


def evaluate_ids(chunk: Chunk, state_size: int, ids: Ids, streams: int = 1, length: int = 500) -> float:
    """Nats per character of a token sequence, the state carried through streams of it.

    Args:
        chunk: from `chunk_loss`.
        state_size: S.
        ids: int [n], n at least 2.
        streams: parts of equal length that the text is cut into and that are read side by side, each from a zero state, which is
            a little pessimistic (what is left over at the end, fewer characters than streams, is not read).
        length: how many characters of a stream a call reads.
    """
    state, total, predictions = tf.zeros((streams, state_size)), 0.0, 0
    for part in map(tf.constant, stream_chunks(ids, streams, length)):
        nats, state = chunk(part[:, :-1], part[:, 1:], state)
        total += float(nats)
        predictions += part[:, 1:].shape.num_elements()
    return total / predictions


def evaluate_windows(
    chunk: Chunk, state_size: int, ids: Ids, window: int = 256, batch: int = 64, progress: Progress = no_progress
) -> MeanLoss:
    """Every position of consecutive windows, each from a zero state, as nanoGPT's blocks (Karpathy 2022, `block_size` 256).

    Args:
        chunk: from `chunk_loss`.
        state_size: S.
        ids: int [n], n at least 2.
        window: the inputs, and so the predictions, of a window. What fills none at the end is not read; a text that is shorter
            is one window.
        batch: windows read side by side.
        progress: gets the windows done.
    """
    length = min(window, len(ids) - 1)
    starts = np.arange((len(ids) - 1) // length) * length
    total = 0.0
    for first in range(0, len(starts), batch):
        part = tf.constant(windows(ids, starts[first : first + batch], length))
        nats, _ = chunk(part[:, :-1], part[:, 1:], tf.zeros((len(part), state_size)))
        total += float(nats)
        progress(Report("evaluating", first + len(part), len(starts), "windows"))
    return MeanLoss(total / (len(starts) * length), len(starts) * length)


def evaluate_last_character(
    read: Reader, state_size: int, ids: Ids, window: int = 100, batch: int = 256, stride: int = 1, progress: Progress = no_progress
) -> MeanLoss:
    """The one character after each of the overlapping windows, each from a zero state: charRNN's objective.

    A window costs as many steps as it is long, for one prediction: `window` times the work of the other protocols.

    Args:
        read: from `compile_reader` with `last`.
        state_size: S.
        ids: int [n]; n - `window` predictions with a stride of 1.
        window: the inputs before a prediction.
        batch: windows read side by side.
        stride: how far a window begins after the one before.
        progress: gets the windows done.

    Raises:
        CharedgeError: the text is no longer than a window.
    """
    starts = np.arange(0, len(ids) - window, stride)
    if not len(starts):
        raise CharedgeError(
            f"the text has {len(ids)} characters that the model knows, and `window` {window} needs {window + 1}: "
            "give a longer text or a smaller `window`."
        )
    total = 0.0
    for first in range(0, len(starts), batch):
        part = tf.constant(windows(ids, starts[first : first + batch], window))
        logits, _ = read(part[:, :-1], tf.zeros((len(part), state_size)))
        total += float(_nats(logits, part[:, -1]))
        progress(Report("evaluating", first + len(part), len(starts), "windows"))
    return MeanLoss(total / len(starts), len(starts))
