"""The logits of a model: a compiled reader, and a text of any length read with its state carried through it.

A recurrence is sequential, but a trained network forgets: after some hundred characters its state depends on them alone, to the
last bits of float32. So a text is cut into streams that are read side by side, all but the first from a state that is a guess;
then every stream whose guess was not the state at the end of the stream before it is read again from that state, until its states
are those that it had. In the end every stream begins where the one before it ends, as if there were one (Song et al. 2021,
"Accelerating Feedforward Computation via Parallel Nonlinear Equation Solving", with streams in place of layers). A network that
forgets nothing costs one pass for each stream.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any, cast

import keras
import numpy as np
import tensorflow as tf

from ..runtime.progress import Progress, Report, no_progress
from .dataset import Ids
from .model import CPU, LOGITS

Reader = Callable[[tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]
"""(tokens int32 [B, T], state float32 [B, S]) -> (logits float32 [B, T, V], the state after them float32 [B, S])."""

STREAMS = 32
STREAM_LENGTH = 1000  # the fewest characters of a stream: most networks forget in fewer
CHUNK = 100  # characters of a stream that are read in one call
MOST_LOGITS = 10_000_000  # that are kept at once
TOLERANCE = 1e-5  # between the tanh of two states that count as one; rounding alone is 1e-6
SATURATED_TOLERANCE = 0.01  # between two states, relative to those above 1


def compile_reader(model: keras.Model, device: str | None = None, last: bool = False) -> Reader:
    """A compiled function from tokens and the state before them to logits and the state after them.

    Args:
        model: from `build_model` or `load_model`.
        device: where every operation is placed, for a model whose variables are there; by default where TensorFlow likes.
        last: whether only the logits after the last token are computed, [B, V].
    """
    dense, outputs = model.get_layer(LOGITS), cast(Any, model.output)
    recurrent = keras.Model(model.input, {"hidden": dense.input, "state": outputs["state"]})
    tokens, state = tf.TensorSpec((None, None), tf.int32), tf.TensorSpec((None, state_size_of(model)), tf.float32)

    @tf.function(input_signature=[tokens, state])
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
    """A text cut into streams of equal length, and those into chunks between which the state can be carried.

    Args:
        ids: int [n], n greater than `streams`; what is left over at the end is not read.
        streams: parts of the text that are read side by side.
        length: most tokens of a chunk.

    Returns:
        Chunks int32 [streams, at most length + 1]: all but the last column are input, all but the first the targets.
    """
    per_stream = (len(ids) - 1) // streams
    starts = np.arange(streams) * per_stream
    for first in range(0, per_stream, length):
        yield windows(ids, starts + first, min(length, per_stream - first))


def windows(ids: Ids, starts: np.ndarray, length: int) -> np.ndarray:
    """The inputs of windows and the target after each: int32 [windows, length + 1]."""
    return ids[starts[:, None] + np.arange(length + 1)].astype(np.int32)


def read_text(model: keras.Model, ids: Ids, progress: Progress = no_progress, stage: str = "reading") -> Iterator[np.ndarray]:
    """The logits after each token of a text but the last, the state carried from the first to the last, computed on the CPU.

    Args:
        model: from `load_model`.
        ids: int [n], n at least 2.
        progress: gets the characters read for the first time.
        stage: what the reports call it.

    Returns:
        Parts of float32 [any, V] in the order of the text. A part has 10 million logits at most, or one token's.
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
    """Read streams, each of which begins where the one before it ends.

    Args:
        read: the model.
        tokens: int32 [B, L], which read row by row are one text.
        state: float32 [S], before the first of them.
        logits: float32 [B, L, V], where the logits are put.
        progress: called with how many tokens were read for the first time.

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
    """The rows in which a network can tell two states apart: float32 [B, S] each, the second may be NaN -> int [any].

    An LSTM may count in its c over thousands of characters; c acts through its tanh, which is 1 long before.
    """
    same = np.abs(np.tanh(states) - np.tanh(others)) <= TOLERANCE
    near = np.abs(states - others) <= SATURATED_TOLERANCE * np.maximum(1, np.abs(states))
    return np.flatnonzero(~(same & near).all(axis=1))
