"""Adaptation while reading: a matrix D that is added to the output layer and learns from the text that the model reads.

    logits + D h                                              predicts the next character; h is the last layer's output
    D += rate * outer(onehot(character) - softmax(logits + D h), h)      once the character is read
    D *= 0.998                                                every 64 characters

This is dynamic evaluation (Krause, Kahembwe, Murray and Renals 2018, "Dynamic Evaluation of Neural Sequence Models") of the output
layer alone: h is part of the state, so that the model file needs nothing more. Only what is read changes D; while the model writes,
D is used and stays as it is.
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

DEFAULT_RATE = 0.002
DECAY, DECAY_CHARACTERS = np.float32(0.998), 64
MAX_BYTES = 1 << 25
"""The most memory for the matrices of all texts of a call."""
MAX_ENTRY = 33_000.0
"""No entry of D is larger: at the rate 1, 64 characters add at most 64, and the decay keeps the sum below 32,000."""

BLOCK = 16  # characters whose updates are added to D at once
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
    hidden: slice
    """The columns of the state that are h, from `hidden_columns`."""
    characters: int = 0
    """Number of characters learned since the last decay: 0 to 63."""

    @classmethod
    def nothing(cls, manifest: Manifest) -> Learned:
        """What a model has learned before its first text: zeros."""
        return cls(np.zeros((manifest.vocabulary_size, manifest.units), np.float32), hidden_columns(manifest))

    def add(self, logits: np.ndarray, state: np.ndarray) -> None:
        """Add D h to the logits of one row, in place: float32 [V], with the state [S] from the same step."""
        logits += product(self.matrix, state[self.hidden])

    @cached_property
    def packed(self) -> str:
        """The matrix for a session: compressed, in base64; made once, because it stays the same while the model writes."""
        return base64.b64encode(zlib.compress(self.matrix.tobytes(), 1)).decode()


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

    The updates of a block of characters are kept as the factors of their sum, R^T H, and added to D by one matrix product at the
    end of the block: an outer product for each character would take several times as long. Until then the prediction is
    logits + D h + R^T (H h), which is the same. Blocks end at the same characters however the text is cut into pieces.
    """

    def __init__(self, advance: Advance, start: Learned, rate: float) -> None:
        """
        Args:
            advance: `Step.advance`.
            start: what was learned before.
            rate: the learning rate; 0 uses what was learned and learns nothing more.
        """
        size, units = start.matrix.shape
        self._step, self._rate, self._hidden, self._characters = advance, rate, start.hidden, start.characters
        self._rows = np.zeros((size + BLOCK, units), np.float32)  # D above H, so that one product gives D h and H h
        self._matrix, self._states = self._rows[:size], self._rows[size:]
        self._matrix[:] = start.matrix
        self._residuals = np.zeros((BLOCK, size), np.float32)  # R: rate * (onehot - softmax)
        self._filled = 0

    def advance(self, token: np.ndarray, state: np.ndarray, logits: np.ndarray) -> None:
        """Run one step of the adapted model in place, as `Step.advance`: int [1], float32 [1, S], float32 [1, V]."""
        self._step(token, state, logits)
        size = len(self._matrix)
        products = product(self._rows, state[0, self._hidden])
        logits += products[:size]
        if self._filled:
            logits += np.einsum("b,bv->v", products[size:], self._residuals)  # the rest of R is 0

    def learn(self, logits: np.ndarray, state: np.ndarray, target: int) -> None:
        """Learn a character.

        Args:
            logits: float32 [V], the prediction of it by `advance`.
            state: float32 [S], from the same step.
            target: its id.
        """
        if not self._rate:
            return
        residual = self._residuals[self._filled]
        np.subtract(logits, np.maximum.reduce(logits), residual)
        np.exp(residual, residual)
        total = float(np.add.reduce(residual))
        if not total >= 1:  # NaN or infinite logits, of a damaged model: nothing to learn
            residual[:] = 0
            return
        residual *= -self._rate / total
        residual[target] += self._rate
        self._states[self._filled] = state[self._hidden]
        self._filled += 1
        self._characters += 1
        if self._filled == BLOCK or self._characters == DECAY_CHARACTERS:
            self._end_block()

    def learned(self) -> Learned:
        """What was learned so far; the learner is not to be used after it."""
        self._end_block()
        return Learned(self._matrix, self._hidden, self._characters)

    def _end_block(self) -> None:
        """Add the block's updates to D."""
        if not self._filled:
            return
        rows = max(1, SINGLE_THREADED // self._states.size)
        for first in range(0, len(self._matrix), rows):
            part = slice(first, first + rows)
            self._matrix[part] += self._residuals.T[part] @ self._states
        self._residuals[:] = 0
        self._filled = 0
        if self._characters == DECAY_CHARACTERS:
            self._matrix *= DECAY
            self._characters = 0
