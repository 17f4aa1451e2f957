"""Sampling: from logits to the next token.

The controls act in this order, each on the result of the one before it:

1. logit bias, banned characters, and `[UNK]`, which is never drawn;
2. repetition penalty, over the last `repetition_window` characters, the prompt's included;
3. temperature;
4. top_k, 5. top_p, 6. min_p;
7. the draw.

This is the order of Hugging Face's logits processors and warpers. llama.cpp, too, adds the bias before the penalty, but applies the
temperature last.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import Any, cast

import numpy as np

from .errors import CharedgeError, InvalidOption
from .text import Normalization, clusters, normalize_part
from .vocabulary import UNKNOWN_ID, Vocabulary

MAX_WINDOW = 1024  # characters of a text kept for the repetition penalty
NOISE_STEPS = 64  # maximum number of steps whose noise is drawn at once
NOISE_BYTES = 1 << 24  # maximum memory for it
LARGEST = 1e30  # value of a control, so that logits stay finite in float32, and their products in float64


@dataclass(frozen=True)
class Sampling:
    """The controls by which the next character is chosen.

    Raises:
        InvalidOption: a field has an invalid value.
    """

    temperature: float = 0.8
    """Below 1 safer, above 1 more varied; 0 is greedy: always the most likely character."""
    top_k: int = 0
    """Keep the k most likely characters (and those as likely as the k-th); 0 keeps all. Fan et al. 2018."""
    top_p: float = 1.0
    """Keep the smallest set of most likely characters with this total probability; 1 keeps all. Holtzman et al. 2019."""
    min_p: float = 0.0
    """Keep characters at least this fraction as likely as the top one; 0 keeps all. Nguyen et al. 2024."""
    repetition_penalty: float = 1.0
    """Divide the positive logits of recent characters by this, and multiply the negative ones; 1 is off. Keskar et al. 2019."""
    repetition_window: int = 64
    """Number of characters that count as recent, at most 1024."""
    banned: str = ""
    """Characters that are never written."""
    logit_bias: Mapping[str, float] = field(default_factory=dict)
    """Values to add to the logits of characters; if two keys are the same character in the model's form, their values are added."""

    def __post_init__(self) -> None:
        def check(fine: bool, option: str, expected: str) -> None:
            if not fine:
                value = getattr(self, option)
                raise InvalidOption(option, f"{value!r} must be {expected}.")

        def is_integer(value: object) -> bool:
            return isinstance(value, Integral)

        def between(low: float, value: object, high: float) -> bool:
            return isinstance(value, Real) and low <= cast(Any, value) <= high  # an integer may be too large for a float

        check(between(0, self.temperature, LARGEST), "temperature", f"from 0 (greedy) to {LARGEST:g}")
        check(is_integer(self.top_k) and self.top_k >= 0, "top_k", "an integer from 0 (off) up")
        check(between(0, self.top_p, 1) and self.top_p > 0, "top_p", "above 0, and at most 1 (off)")
        check(between(0, self.min_p, 1), "min_p", "from 0 (off) to 1")
        check(
            between(1 / LARGEST, self.repetition_penalty, LARGEST),
            "repetition_penalty",
            f"from {1 / LARGEST:g} to {LARGEST:g}; 1 is off",
        )
        window = self.repetition_window
        check(is_integer(window) and 1 <= window <= MAX_WINDOW, "repetition_window", f"an integer from 1 to {MAX_WINDOW}")
        check(isinstance(self.banned, str), "banned", "a text of the characters to ban")
        for character, value in self.logit_bias.items():
            if not isinstance(value, Real) or not -LARGEST <= value <= LARGEST:
                entry = f"{character}={value}"
                raise InvalidOption("logit_bias", f"{entry!r} must have a value from {-LARGEST:g} to {LARGEST:g}.")

    def bias(self, vocabulary: Vocabulary, normalization: Normalization = "none") -> np.ndarray:
        """The bias to add to the logits of every step; characters that the model does not know have no effect.

        Args:
            vocabulary: the characters of the model.
            normalization: the Unicode form of the model's text, to which the characters in the controls are converted.

        Returns:
            float32 [V], -inf for what is never drawn.

        Raises:
            InvalidOption: every character is banned, or a character to ban or to bias is several in the model's form.
        """
        bias = np.zeros(len(vocabulary), np.float32)
        for key, value in self.logit_bias.items():
            character = _single_characters("logit_bias", key, normalization)
            if len(character) != 1:
                raise InvalidOption("logit_bias", f"{key!r} must be a single character.")
            bias[vocabulary.encode(character)] += value
        bias[vocabulary.encode(_single_characters("banned", self.banned, normalization))] = -np.inf
        bias[UNKNOWN_ID] = -np.inf
        if not np.isfinite(bias).any():
            raise InvalidOption("banned", f"{self.banned!r} leaves no character to write: ban fewer.")
        return bias


def _single_characters(option: str, text: str, normalization: Normalization) -> str:
    """The characters of an option, in the model's Unicode form.

    Raises:
        InvalidOption: one of them is several characters in that form, as `é` is in NFD; its parts are other letters.
    """
    characters = ""
    for cluster in clusters(normalize_part(text, "none"), normalization):
        written = normalize_part(cluster, normalization)
        if len(written) != 1:
            points = " ".join(f"U+{ord(character):04X}" for character in written)
            raise InvalidOption(
                option,
                f"{cluster!r} is {len(written)} characters ({points}) in the model's normalization {normalization}: "
                "give single characters, and combining marks first.",
            )
        characters += written
    return characters


def random_rows(seed: int | None, rows: int) -> list[np.random.Generator]:
    """A random generator for each row; row k draws the same numbers whatever the number of rows.

    Raises:
        InvalidOption: the seed is not an integer from 0 up.
    """
    if seed is not None and not (isinstance(seed, Integral) and seed >= 0):
        raise InvalidOption("seed", f"{seed!r} must be an integer from 0 up.")
    return [np.random.Generator(np.random.PCG64(child)) for child in np.random.SeedSequence(seed).spawn(rows)]


class NotFinite(CharedgeError):
    """A logit is NaN or infinite, which only a damaged model produces."""

    def __init__(self) -> None:
        super().__init__("the model produced NaN or infinite logits: check the file with `charedge verify`.")


class Sampler:
    """Draws the next token of every row.

    A draw is an argmax over `logits + temperature * Gumbel noise`, which has exactly the distribution softmax(logits /
    temperature) (Gumbel 1954; Maddison, Tarlow and Minka 2014, "A* Sampling") and needs no exponential and no sum in a step.
    The noise is drawn in blocks, from `random()` only, whose stream numpy keeps from version to version; a row uses V numbers of
    its stream per step, whatever the size of the block. Without filters and penalty, which come after the bias, the bias is
    added to the whole block at once: with only a temperature, a step costs one addition and one argmax.
    """

    def __init__(
        self,
        sampling: Sampling,
        bias: np.ndarray,
        randoms: Sequence[np.random.Generator],
        recent: Sequence[np.ndarray],
        length: int | None = None,
        noise_bytes: int = NOISE_BYTES,
    ) -> None:
        """
        Args:
            sampling: the controls.
            bias: float32 [V], from `Sampling.bias`.
            randoms: a generator for each row.
            recent: the last token ids of each row's prompt, for the repetition penalty.
            length: maximum number of draws, so that no more noise is drawn than needed; None if unknown.
            noise_bytes: maximum memory for the noise, unless one step needs more.
        """
        self._sampling, self._bias, self._randoms = sampling, bias, list(randoms)
        self._noise_bytes = noise_bytes
        self._remaining = sys.maxsize if length is None else length
        self._filters = sampling.temperature > 0 and (sampling.top_k > 0 or sampling.top_p < 1 or sampling.min_p > 0)
        self._penalty = Penalty(sampling, len(bias), recent) if sampling.repetition_penalty != 1 else None
        self._block: list[Any] = []  # the random state from which the noise was drawn, for each row
        self._noise = np.empty((0, len(randoms), len(bias)), np.float32)
        self._scores = np.empty((len(randoms), len(bias)), np.float32 if self.plain else np.float64)
        self._step = 0

    def __call__(self, logits: np.ndarray) -> np.ndarray:
        """Draw the next token of each row: float32 [rows, V] -> int [rows].

        Raises:
            NotFinite: a logit is NaN or infinite.
        """
        scores = self.scores(logits)
        tokens = scores.argmax(axis=1)
        self.check(scores, tokens)
        self.accept(tokens)
        return tokens

    def scores(self, logits: np.ndarray) -> np.ndarray:
        """The scores of this step's draw, the highest of each row being drawn: [rows, V], overwritten by the next call."""
        if self._step == len(self._noise):
            self._draw_noise()
        noise = self._noise[self._step]
        self._step += 1
        if not self.plain:  # else the bias is in the noise
            logits = np.add(logits, self._bias, dtype=np.float64)
            if self._penalty is not None:
                logits = self._penalty(logits)
            if self._filters:
                logits = self._filter(logits)
        return np.add(logits, noise, out=self._scores)

    @staticmethod
    def check(scores: np.ndarray, tokens: np.ndarray) -> None:
        """Check the scores of the chosen tokens: an argmax returns a NaN or an infinity if there is one.

        Raises:
            NotFinite: a logit is NaN or infinite.
        """
        for row, token in enumerate(tokens.tolist()):
            if not math.isfinite(scores.item(row, token)):
                raise NotFinite

    def accept(self, tokens: np.ndarray) -> None:
        """Add the chosen tokens to the recent ones; `__call__` does it itself."""
        if self._penalty is not None:
            self._penalty.accept(tokens)

    @property
    def plain(self) -> bool:
        """Whether a draw is only an argmax over `logits + noise`."""
        return not self._filters and self._penalty is None

    def noise(self) -> Iterator[np.ndarray]:
        """The noise of each following step, including the bias: float32 [rows, V]; for a plain sampler."""
        while True:
            self._draw_noise()
            yield from self._noise

    def keep(self, rows: Sequence[int]) -> None:
        """Keep only some of the rows."""
        self._randoms = [self._randoms[row] for row in rows]
        self._block = [self._block[row] for row in rows]
        self._noise = np.ascontiguousarray(self._noise[:, rows])
        self._scores = self._scores[: len(rows)]
        if self._penalty is not None:
            self._penalty.keep(rows)

    def position(self) -> dict[str, Any]:
        """The position of the first row's draws: the random state at the start of its block, and the steps since."""
        return {"random": self._block[0] if self._block else self._randoms[0].bit_generator.state, "step": self._step}

    def seek(self, position: Mapping[str, Any]) -> None:
        """Set the position of the only row's draws, from `position`."""
        self._step, self._block, self._noise = 0, [], self._noise[:0]
        random = self._randoms[0].bit_generator
        random.state = position["random"]
        random.advance(position["step"] * len(self._bias))  # pyright: ignore[reportAttributeAccessIssue]

    def _draw_noise(self) -> None:
        rows, size = len(self._randoms), len(self._bias)
        steps = max(1, min(NOISE_STEPS, self._remaining, self._noise_bytes // (rows * size * np.float32().itemsize)))
        self._step = 0
        self._remaining -= steps
        self._block = [random.bit_generator.state for random in self._randoms]
        self._noise = np.empty((steps, rows, size), np.float32)
        # the filters have already divided the logits by the temperature
        scale = -1.0 if self._filters else -self._sampling.temperature
        uniform, exponential = np.empty((steps, size)), np.empty((steps, size), np.float32)
        for row, random in enumerate(self._randoms):
            random.random(out=uniform)
            np.maximum(uniform, sys.float_info.min, out=uniform)
            np.negative(np.log(uniform, out=uniform), out=exponential, casting="same_kind")  # near 1, float64 has enough digits
            np.multiply(np.log(exponential, out=exponential), np.float32(scale), out=self._noise[:, row])
        if self.plain:
            self._noise += self._bias

    def _filter(self, logits: np.ndarray) -> np.ndarray:
        """Divide by the temperature and apply top_k, top_p and min_p: float64 [rows, V] -> [rows, V], at most 0."""
        with np.errstate(over="ignore", invalid="ignore"):  # a tiny temperature, or an infinite logit, which `check` finds
            scaled = (logits - logits.max(axis=1, keepdims=True)) / self._sampling.temperature
        if 0 < self._sampling.top_k < scaled.shape[1]:
            kth = np.partition(scaled, -self._sampling.top_k, axis=1)[:, -self._sampling.top_k, None]
            scaled[scaled < kth] = -np.inf
        if self._sampling.top_p < 1:
            order = np.argsort(-scaled, axis=1, kind="stable")
            ranked = np.exp(np.take_along_axis(scaled, order, axis=1))
            before = np.cumsum(ranked, axis=1) - ranked  # the total probability of the likelier ones, unnormalised
            dropped = before >= self._sampling.top_p * ranked.sum(axis=1, keepdims=True)
            np.put_along_axis(scaled, order, np.where(dropped, -np.inf, np.take_along_axis(scaled, order, axis=1)), axis=1)
        if self._sampling.min_p > 0:
            scaled[scaled < math.log(self._sampling.min_p)] = -np.inf  # the most likely one has 0
        return scaled


class Penalty:
    """The repetition penalty of every row, over a window of recent tokens."""

    def __init__(self, sampling: Sampling, vocabulary_size: int, recent: Sequence[np.ndarray]) -> None:
        self._penalty, self._window = sampling.repetition_penalty, sampling.repetition_window
        self._counts = np.zeros((len(recent), vocabulary_size), np.int32)
        self._recent = [ids[-self._window :].tolist() for ids in recent]
        for row, ids in enumerate(self._recent):
            np.add.at(self._counts[row], ids, 1)

    def __call__(self, logits: np.ndarray) -> np.ndarray:
        penalised = np.where(logits > 0, logits / self._penalty, logits * self._penalty)
        return np.where(self._counts > 0, penalised, logits)

    def accept(self, tokens: np.ndarray) -> None:
        for row, token in enumerate(tokens.tolist()):
            self._recent[row].append(token)
            self._counts[row, token] += 1
            if len(self._recent[row]) > self._window:
                self._counts[row, self._recent[row].pop(0)] -= 1

    def keep(self, rows: Sequence[int]) -> None:
        self._counts = self._counts[rows]
        self._recent = [self._recent[row] for row in rows]
