"""Adaptation while reading: a matrix D that is added to the output layer and learns from the text that the model reads.

    p = softmax(logits + D h)                  predicts the next character; h is the last layer's output
    e = onehot(character) - p                  once the character is read
    D += outer(rates * e, h)                   one step of stochastic gradient descent on the character's cross-entropy
    D *= 0.998                                 every 64 characters
    rates = rate / sqrt(mean(e * e) + 0.0003)  for each character of the vocabulary, every 16 characters and after a prompt

This is dynamic evaluation (Krause, Kahembwe, Murray and Renals 2018, "Dynamic Evaluation of Neural Sequence Models") of the output
layer alone: h is part of the state, so that the model file needs nothing more. As there, gradients are divided by their root mean
square: without it, frequent characters learn too fast or rare ones too slowly. The mean is over all characters that were read, and
over 64 more whose e * e is 1 / V.

Only what is read changes D; while the model writes, D is used and stays as it is.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from numbers import Real
from typing import Any, cast

import numpy as np

from .errors import InvalidOption
from .manifest import STATES_PER_LAYER, Manifest

DEFAULT_RATE = 0.0002
DECAY, DECAY_CHARACTERS = np.float32(0.998), 64
PRIOR_CHARACTERS = 64
SMALLEST_SQUARE = 0.0003
MAX_BYTES = 1 << 25
"""The most memory for the matrices of all texts of a call."""
MAX_ENTRY = 2e6
"""No entry of D is larger: at the rate 1, 64 characters add at most 64 / sqrt(0.0003), and the decay keeps 500 times that."""

BLOCK = 16  # characters whose updates are added to D at once; a divisor of the others
SINGLE_THREADED = 1 << 18  # multiplications up to which OpenBLAS computes a product in one thread

Advance = Callable[[np.ndarray, np.ndarray, np.ndarray], None]
"""`Step.advance`, or what takes its place."""


def checked_rate(adapt: bool, rate: float, manifest: Manifest, texts: int = 1) -> float | None:
    """The learning rate of a call.

    Args:
        adapt: whether it adapts.
        rate: the learning rate if it does.
        manifest: of the model.
        texts: number of texts of the call, each of which learns in a matrix of its own.

    Returns:
        None if the call does not adapt.

    Raises:
        InvalidOption: the rate is not a number above 0 and at most 1, or the matrices are larger than `MAX_BYTES`.
    """
    if not (isinstance(rate, Real) and 0 < cast(Any, rate) <= 1):
        raise InvalidOption("adapt_rate", f"{rate!r} must be above 0, and at most 1.")
    if not adapt:
        return None
    size = texts * matrix_bytes(manifest)
    if size > MAX_BYTES:
        each = f"{manifest.vocabulary_size:,} x {manifest.units:,} float32 numbers for {texts:,} text{'' if texts == 1 else 's'}"
        raise InvalidOption(
            "adapt",
            f"needs {size / 2**20:,.0f} MiB ({each}), more than the {MAX_BYTES >> 20} MiB that it may use: "
            f"leave it out{'' if texts == 1 else ', or give fewer texts at once'}.",
        )
    return float(rate)


@dataclass(frozen=True)
class Learned:
    """What a model has learned from the text that it has read."""

    matrix: np.ndarray
    """D: float32 [V, units]."""
    squares: np.ndarray
    """The sum of the squares of all errors e: float64 [V]."""
    characters: int
    """The number of characters learned."""
    hidden: slice
    """The columns of the state that are h, from `hidden_columns`."""

    @classmethod
    def nothing(cls, manifest: Manifest) -> Learned:
        """What a model has learned before its first text."""
        size = manifest.vocabulary_size
        return cls(np.zeros((size, manifest.units), np.float32), np.zeros(size), 0, hidden_columns(manifest))

    def add(self, logits: np.ndarray, state: np.ndarray) -> None:
        """Add D h to the logits of one row, in place: float32 [V], with the state [S] from the same step."""
        logits += product(self.matrix, state[self.hidden])

    @cached_property
    def packed(self) -> str:
        """The arrays for a session: compressed, in base64; made once, because they stay the same while the model writes."""
        return base64.b64encode(zlib.compress(self.matrix.tobytes() + self.squares.tobytes(), 1)).decode()

    @classmethod
    def unpack(cls, packed: str, characters: int, vocabulary_size: int, hidden: slice) -> Learned:
        """Read the arrays of `packed`.

        Raises:
            ValueError, zlib.error: they are not what it writes.
        """
        units = hidden.stop - hidden.start
        sizes = [vocabulary_size * units * np.float32().itemsize, vocabulary_size * np.float64().itemsize]
        unpacker = zlib.decompressobj()
        data = unpacker.decompress(base64.b64decode(packed, validate=True), sum(sizes) + 1)  # at most this
        if len(data) != sum(sizes) or not unpacker.eof or unpacker.unused_data:
            raise ValueError
        matrix = np.frombuffer(data[: sizes[0]], np.float32).reshape(vocabulary_size, units)
        squares = np.frombuffer(data[sizes[0] :], np.float64)
        # an error is from -1 to 1; in float32 its square may be a little more
        if not ((np.abs(matrix) <= MAX_ENTRY).all() and (squares >= 0).all() and (squares <= 1.001 * characters).all()):
            raise ValueError
        return cls(matrix, squares, characters, hidden)


def matrix_bytes(manifest: Manifest) -> int:
    """The size of a text's matrix in memory."""
    return manifest.vocabulary_size * manifest.units * np.float32().itemsize


def hidden_columns(manifest: Manifest) -> slice:
    """The columns of the state that hold the last layer's output: a GRU's state is h, an LSTM's h then c."""
    last = manifest.state_size - STATES_PER_LAYER[manifest.cell] * manifest.units
    return slice(last, last + manifest.units)


def product(matrix: np.ndarray, vector: np.ndarray) -> np.ndarray:
    """A matrix-vector product by einsum: in one thread, and the same numbers whatever BLAS is installed and has cores."""
    return np.einsum("vn,n->v", matrix, vector)


def adapted(advance: Advance, learned: Sequence[Learned | None]) -> Advance:
    """The steps of the adapted models.

    Args:
        advance: `Step.advance`.
        learned: of each row.

    Returns:
        `advance` itself if no row has learned anything.
    """
    rows = [(row, one.add) for row, one in enumerate(learned) if one is not None]
    if not rows:
        return advance

    def adapted_advance(tokens: np.ndarray, state: np.ndarray, logits: np.ndarray) -> None:
        advance(tokens, state, logits)
        for row, add in rows:
            add(logits[row], state[row])

    return adapted_advance


class Learner:
    """Reads a text and learns from it, one row.

    The updates of a block of 16 characters are kept as the factors of their sum, rates * E^T H, and added to D by one matrix
    product at the end of the block: an outer product for each character would take several times as long. Until then the prediction
    is logits + D h + rates * E^T (H h), which is the same. Blocks end at the same characters however a text is cut into pieces.
    """

    def __init__(self, advance: Advance, start: Learned, rate: float) -> None:
        """
        Args:
            advance: `Step.advance`.
            start: what was learned before.
            rate: the learning rate; 0 uses what was learned and learns nothing more.
        """
        size, units = start.matrix.shape
        self._step, self._rate, self._hidden = advance, rate, start.hidden
        self._squares, self._characters = start.squares.copy(), start.characters
        self._rows = np.zeros((size + BLOCK, units), np.float32)  # D above H, so that one product gives D h and H h
        self._matrix, self._states = self._rows[:size], self._rows[size:]
        self._matrix[:] = start.matrix
        self._errors = np.zeros((BLOCK, size), np.float32)  # E; its rows after those filled are 0
        self._filled = 0
        self._set_rates()

    def advance(self, token: np.ndarray, state: np.ndarray, logits: np.ndarray) -> None:
        """Run one step of the adapted model in place, as `Step.advance`: int [1], float32 [1, S], float32 [1, V]."""
        self._step(token, state, logits)
        size = len(self._matrix)
        products = product(self._rows, state[0, self._hidden])
        logits += products[:size]
        if self._filled:
            logits += self._rates * (products[size:] @ self._errors)

    def learn(self, logits: np.ndarray, state: np.ndarray, target: int) -> None:
        """Learn a character.

        Args:
            logits: float32 [V], the prediction of it by `advance`.
            state: float32 [S], from the same step.
            target: its id.
        """
        if not self._rate:
            return
        error = self._errors[self._filled]
        np.subtract(logits, np.maximum.reduce(logits), error)
        np.exp(error, error)
        total = float(np.add.reduce(error))
        if not total >= 1:  # NaN or infinite logits, of a damaged model: nothing to learn
            error[:] = 0
            return
        error *= -1 / total
        error[target] += 1
        self._states[self._filled] = state[self._hidden]
        self._filled += 1
        self._characters += 1
        if self._characters % BLOCK == 0:
            self._end_block()
        if self._characters % DECAY_CHARACTERS == 0:
            self._matrix *= DECAY

    def learned(self) -> Learned:
        """What was learned so far; the learner is not to be used after it."""
        self._end_block()
        return Learned(self._matrix, self._squares, self._characters, self._hidden)

    def _set_rates(self) -> None:
        """The rate of each character of the vocabulary, from the errors so far."""
        prior = PRIOR_CHARACTERS / len(self._squares)
        mean = (self._squares + prior) / (self._characters + PRIOR_CHARACTERS)
        self._rates = (self._rate / np.sqrt(mean + SMALLEST_SQUARE)).astype(np.float32)

    def _end_block(self) -> None:
        """Add the block's updates to D, and set the rates for the next one."""
        if not self._filled:
            return
        rows = max(1, SINGLE_THREADED // self._states.size)
        for first in range(0, len(self._matrix), rows):
            part = slice(first, first + rows)
            self._matrix[part] += self._rates[part, None] * (self._errors.T[part] @ self._states)
        self._squares += np.einsum("bv,bv->v", self._errors, self._errors)
        self._errors[:] = 0
        self._filled = 0
        self._set_rates()
