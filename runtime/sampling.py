"""From logits to the next token."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from .errors import CharedgeError, InvalidOption
from .vocabulary import UNKNOWN_ID

NOISE_STEPS = 64  # how many steps' noise is drawn at once


def random_rows(seed: int | None, rows: int) -> list[np.random.Generator]:
    """A random generator for each row; row k of many draws what row k of any other number of rows would.

    Raises:
        InvalidOption: the seed is negative.
    """
    if seed is not None and seed < 0:
        raise InvalidOption(f"--seed {seed} must not be negative.")
    return [np.random.Generator(np.random.PCG64(child)) for child in np.random.SeedSequence(seed).spawn(rows)]


class Sampler:
    """Draws each row's next token from softmax(logits / temperature), or takes the likeliest at temperature 0.

    The draw is an argmax over `logits + temperature * Gumbel noise`, which has exactly that distribution (Gumbel 1954; Maddison,
    Tarlow and Minka 2014, "A* Sampling"), and needs neither an exponential nor a sum a step. The noise is drawn in blocks, from
    `random()` alone, whose stream numpy keeps from version to version. `[UNK]` is never drawn.
    """

    def __init__(self, vocabulary_size: int, temperature: float = 1.0, randoms: Sequence[np.random.Generator] = ()) -> None:
        """
        Args:
            vocabulary_size: V.
            temperature: at least 0; 0 is greedy.
            randoms: a generator for each row.

        Raises:
            InvalidOption: the temperature is negative, infinite or no number.
        """
        if not (math.isfinite(temperature) and temperature >= 0):
            raise InvalidOption(f"--temperature {temperature:g} must be a number from 0 (greedy) up.")
        self._temperature = temperature
        self._randoms = randoms
        self._noise = np.zeros((NOISE_STEPS, len(randoms), vocabulary_size), np.float32)
        self._noise[:, :, UNKNOWN_ID] = -np.inf
        self._scores = np.empty((len(randoms), vocabulary_size), np.float32)
        self._step = NOISE_STEPS

    def __call__(self, logits: np.ndarray) -> np.ndarray:
        """The next token of each row: float32 [rows, V] -> int32 [rows].

        Raises:
            CharedgeError: a logit is NaN or infinite, which no sound model gives.
        """
        if self._step == NOISE_STEPS:
            self._draw_noise()
        np.add(logits, self._noise[self._step], out=self._scores)
        self._step += 1
        tokens = self._scores.argmax(axis=1)
        for row, token in enumerate(tokens):
            if not math.isfinite(self._scores[row, token]):
                raise CharedgeError("the model gave logits that are no numbers: check the file with `charedge verify`.")
        return tokens.astype(np.int32)

    def _draw_noise(self) -> None:
        self._step = 0
        if self._temperature == 0:
            return
        steps, _, size = self._noise.shape
        for row, random in enumerate(self._randoms):
            uniform = np.maximum(random.random((steps, size)), np.finfo(np.float64).tiny)
            self._noise[:, row] = -self._temperature * np.log(-np.log(uniform))
        self._noise[:, :, UNKNOWN_ID] = -np.inf
