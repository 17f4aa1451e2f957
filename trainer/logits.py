"""Computes the logits of a model: a compiled reader, and long texts read in parallel with the state carried.

A recurrence is sequential, but a trained network forgets: after some hundred characters its state depends only on them, up to the
last bits of float32. So a text is cut into streams that are read side by side, all but the first from a guessed state. Then every
stream whose guess differs from the final state of the stream before it is read again from that state, until its states repeat. In
the end every stream starts where the stream before it ends, as in one sequential pass (Song et al. 2021, "Accelerating Feedforward
Computation via Parallel Nonlinear Equation Solving", with streams in place of layers). A network that forgets nothing costs one
pass per stream.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any, cast

import keras
import numpy as np
import tensorflow as tf

from ..runtime.progress import Progress, Report, no_progress
from .dataset import Ids, windows
from .model import CPU, LOGITS

Reader = Callable[[tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]
"""(tokens int32 [B, T], state float32 [B, S]) -> (logits float32 [B, T, V], the state after them float32 [B, S])."""

STREAMS = 32
STREAM_LENGTH = 1000  # smallest length of a stream in characters; most networks forget sooner
CHUNK = 100  # characters of a stream that are read in one call
MOST_LOGITS = 10_000_000  # logits kept in memory at once
TOLERANCE = 1e-5  # largest difference between the tanh of two equal states; rounding alone gives 1e-6
SATURATED_TOLERANCE = 0.01  # largest difference between two equal states, relative if they are above 1


def compile_reader(model: keras.Model, device: str | None = None, last: bool = False) -> Reader:
    """Compile a function from tokens and a state to logits and the next state.

    Args:
        model: from `build_model` or `load_model`.
        device: the device of every operation, which must hold the variables; by default TensorFlow chooses.
        last: whether to compute only the logits after the last token, [B, V].
    """
    dense, outputs = model.get_layer(LOGITS), cast(Any, model.output)
    recurrent = keras.Model(model.input, {"hidden": dense.input, "state": outputs["state"]})
    tokens, state = tf.TensorSpec((None, None), tf.int32), tf.TensorSpec((None, state_size_of(model)), tf.float32)

    @tf.function(input_signature=[tokens, state], autograph=False)
    def read(tokens: tf.Tensor, state: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.device(device) if device else nullcontext():
            after = recurrent({"tokens": tokens, "state": state}, training=False)
            hidden = after["hidden"][:, -1] if last else after["hidden"]  # [B, units] or [B, T, units]
            return dense(hidden), tf.cast(after["state"], tf.float32)

    return read


def state_size_of(model: keras.Model) -> int:
    """S of a model from `build_model`."""
    return cast(Any, model.input)["state"].shape[-1]


def stream_chunks(ids: Ids, streams: int = 1, length: int = 500) -> Iterator[np.ndarray]:
    """Cut a text into streams of equal length, and the streams into chunks between which the state can be carried.

    Args:
        ids: int [n], n greater than `streams`; a remainder at the end is not read.
        streams: number of streams.
        length: largest number of tokens in a chunk.

    Returns:
        Chunks int32 [streams, length + 1 at most]: all but the last column are input, all but the first are targets.
    """
    per_stream = (len(ids) - 1) // streams
    starts = np.arange(streams) * per_stream
    for first in range(0, per_stream, length):
        yield windows(ids, starts + first, min(length, per_stream - first))


def read_text(model: keras.Model, ids: Ids, progress: Progress = no_progress, stage: str = "reading") -> Iterator[np.ndarray]:
    """Compute the logits after each token of a text but the last, on the CPU, the state carried through the whole text.

    Args:
        model: from `load_model`.
        ids: int [n], n at least 2.
        progress: gets the characters read for the first time.
        stage: its name in the reports.

    Returns:
        Parts float32 [any, V] in the order of the text, each of 10 million logits at most, or of one token.
    """
    total = len(ids) - 1

    def show(done: int) -> None:
        progress(Report(stage, done, total, "characters"))

    show(0)
    read = compile_reader(model, CPU)
    state = np.zeros(state_size_of(model), np.float32)
    vocabulary_size, start = model.get_layer(LOGITS).units, 0
    while start < total:
        characters = min(total - start, max(1, MOST_LOGITS // vocabulary_size))
        streams = min(STREAMS, max(1, characters // STREAM_LENGTH))
        length = characters // streams
        tokens = np.asarray(ids[start : start + streams * length], np.int32).reshape(streams, length)
        logits = np.empty((streams, length, vocabulary_size), np.float32)
        state = _read_streams(read, tokens, state, logits, lambda done, start=start: show(start + done))
        yield logits.reshape(-1, vocabulary_size)
        start += streams * length


def _read_streams(
    read: Reader, tokens: np.ndarray, state: np.ndarray, logits: np.ndarray, progress: Callable[[int], object]
) -> np.ndarray:
    """Read streams, each of which starts where the one before it ends.

    Args:
        read: from `compile_reader`.
        tokens: int32 [B, L], one text row by row.
        state: float32 [S], before the first token.
        logits: float32 [B, L, V], to be filled.
        progress: called with the number of tokens read for the first time.

    Returns:
        The state after the last token, float32 [S].
    """
    streams, length = tokens.shape
    starts = range(0, length, CHUNK)
    states = np.full((len(starts) + 1, streams, len(state)), np.nan, np.float32)  # before every chunk, and after the last
    states[0], states[0, 0] = 0, state
    rows = np.arange(streams)
    for first_time in [True] + [False] * (streams - 1):  # every pass makes one more stream final, at least
        for i, start in enumerate(starts):
            chunk = slice(start, start + CHUNK)
            chunk_logits, after = read(tf.constant(tokens[rows, chunk]), tf.constant(states[i, rows]))
            logits[rows, chunk], after = chunk_logits.numpy(), after.numpy()
            if first_time:
                progress(streams * min(start + CHUNK, length))
            changed = _differ(after, states[i + 1, rows])
            states[i + 1, rows] = after
            rows = rows[changed]
            if not len(rows):
                break
        rows = 1 + _differ(states[-1, :-1], states[0, 1:])
        if not len(rows):
            break
        states[0, rows] = states[-1, rows - 1]
    return states[-1, -1]


def _differ(states: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Rows in which two states differ for the network: float32 [B, S] each, the second may be NaN -> int [any].

    An LSTM may count in c over thousands of characters, but c acts through its tanh, which saturates long before.
    """
    same = np.abs(np.tanh(states) - np.tanh(others)) <= TOLERANCE
    near = np.abs(states - others) <= SATURATED_TOLERANCE * np.maximum(1, np.abs(states))
    return np.flatnonzero(~(same & near).all(axis=1))
