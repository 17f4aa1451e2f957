"""Evaluates a Keras model on a text by one of three protocols that published results use."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from ..runtime.errors import CharedgeError
from ..runtime.progress import Progress, Report, no_progress
from ..runtime.scoring import nats_of
from .dataset import Ids, windows
from .logits import Reader, compile_reader, read_text, state_size_of, stream_chunks
from .model import CPU

Chunk = Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]
WINDOWS = {"windows": 256, "last-character": 100}
"""Characters of a window by default."""
NATS_AT_ONCE = 1_000_000  # logits whose float64 copy is taken


@dataclass(frozen=True)
class MeanLoss:
    """Mean cross-entropy of a model over a text."""

    nats_per_character: float
    predictions: int
    """Number of characters that the mean is over."""


def evaluate_by(
    protocol: str,
    model: keras.Model,
    ids: Ids,
    window: int | None = None,
    stride: int = 1,
    progress: Progress = no_progress,
) -> MeanLoss:
    """Evaluate a model by a protocol, on the CPU.

    Args:
        protocol: `carried`, `windows` or `last-character`.
        model: from `load_model`.
        ids: int [n], n at least 2.
        window: characters of a window; by default 256, or 100 for `last-character`.
        stride: characters between the starts of two `last-character` windows.
        progress: gets the characters (`carried`) or windows done.

    Raises:
        CharedgeError: the text is not longer than a `last-character` window.
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
    """Evaluate on every character but the first, the state carried through the whole text, as `charedge score` does.

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
    """Compile a function that sums the loss of a chunk, so that the logits stay in the graph.

    Args:
        read: from `compile_reader`.

    Returns:
        A function (tokens int32 [B, T], targets int32 [B, T], state float32 [B, S]) -> (sum of nats float64, state after).
    """

    @tf.function(reduce_retracing=True, autograph=False)
    def chunk(tokens: tf.Tensor, targets: tf.Tensor, state: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        logits, state = read(tokens, state)
        return _nats(logits, targets), state

    return chunk


def _nats(logits: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
    """Sum of the cross-entropies in nats, float64."""
    nats = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=targets, logits=logits)
    return tf.reduce_sum(tf.cast(nats, tf.float64))


def evaluate_ids(chunk: Chunk, state_size: int, ids: Ids, streams: int = 1, length: int = 500) -> float:
    """Nats per character of a text, read as streams side by side with the state carried through each.

    Args:
        chunk: from `chunk_loss`.
        state_size: S.
        ids: int [n], n at least 2.
        streams: number of parts of equal length, each read from a zero state, which raises the loss a little. The remainder at
            the end, fewer characters than streams, is not read.
        length: characters of a stream that one call reads.
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
    """Evaluate on every position of consecutive windows from zero states, as nanoGPT does (Karpathy 2022, `block_size` 256).

    Args:
        chunk: from `chunk_loss`.
        state_size: S.
        ids: int [n], n at least 2.
        window: inputs, and so predictions, in a window. The remainder at the end is not read; a shorter text is one window.
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
    """Evaluate on the one character after each overlapping window from a zero state, as charRNN does.

    Each prediction takes `window` steps: with a stride of 1, `window` times the work of the other protocols.

    Args:
        read: from `compile_reader` with `last`.
        state_size: S.
        ids: int [n]; n - `window` predictions with a stride of 1.
        window: inputs before a prediction.
        batch: windows read side by side.
        stride: characters between the starts of two windows.
        progress: gets the windows done.

    Raises:
        CharedgeError: the text is not longer than a window.
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
