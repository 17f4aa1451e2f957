"""Scoring: nats per character of a text, and the probe that every file must pass before it is used."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .adaptation import Learner
from .errors import CharedgeError
from .interpreter import Step
from .model_file import ModelFile


@dataclass(frozen=True)
class Score:
    """A model's loss over a text. N characters give N - 1 predictions, from a zero state, softmax over all V tokens."""

    nats_per_character: float
    bits_per_character: float
    characters: int
    """N, without those that were skipped."""
    skipped_characters: int
    """Characters outside the vocabulary that were left out."""
    adapted: bool = False
    """Whether the model learned from each character after it was scored."""


def nats_of(logits: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """The cross-entropy of each prediction: -log softmax(logits)[target].

    Args:
        logits: float [n, V].
        targets: int [n].

    Returns:
        float64 [n], in nats.
    """
    return -log_softmax(logits)[np.arange(len(targets)), targets]


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """The logarithms of the probabilities, computed without overflow: float [n, V] -> float64 [n, V]."""
    logits = logits.astype(np.float64)
    logits -= logits.max(axis=1, keepdims=True)
    logits -= np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return logits


class TooShort(CharedgeError):
    """A text is too short for a prediction."""

    def __init__(self) -> None:
        super().__init__("the text has fewer than two characters that the model knows: give a longer one.")


class Scorer:
    """Sums the loss of a text that comes in parts, with the state carried from zeros, in constant memory."""

    def __init__(self, step: Step, block: int = 256, learner: Learner | None = None) -> None:
        """
        Args:
            step: the model.
            block: number of steps whose logits are kept before their loss is summed.
            learner: learns each character after it is predicted, if the model adapts.
        """
        self._step, self._state, self._learner = step, step.zeros(), learner
        self._logits = step.empty_logits(block)
        self._last = np.empty(0, np.int32)  # the last id, whose successor is not known yet
        self._total = 0.0
        self.characters = 0

    def add(self, ids: np.ndarray) -> None:
        """Read the next part of the text: int32 [n]."""
        self.characters += len(ids)
        ids = np.concatenate([self._last, ids])
        block = len(self._logits)
        read = self._read if self._learner is None else self._read_and_learn
        for start in range(0, len(ids) - 1, block):
            part = ids[start : start + block + 1]  # the targets are one ahead of the inputs
            read(part)
            self._total += float(nats_of(self._logits[: len(part) - 1], part[1:]).sum())
        self._last = ids[-1:]

    def _read(self, ids: np.ndarray) -> None:
        """Fill the logits with the predictions of all ids but the first."""
        advance, state = self._step.advance, self._state
        for i, token in enumerate(ids[:-1].reshape(-1, 1)):
            advance(token, state, self._logits[i : i + 1])

    def _read_and_learn(self, ids: np.ndarray) -> None:
        """The same, each prediction after the ids before it were learned."""
        assert self._learner is not None
        advance, learn, state = self._learner.advance, self._learner.learn, self._state
        for i, (token, target) in enumerate(zip(ids[:-1].reshape(-1, 1), ids[1:].tolist(), strict=True)):
            advance(token, state, self._logits[i : i + 1])
            learn(self._logits[i], state[0], target)

    @property
    def nats_per_character(self) -> float:
        """The mean loss of the text so far, in nats per character.

        Raises:
            TooShort: there were fewer than two characters.
        """
        if self.characters < 2:
            raise TooShort
        return self._total / (self.characters - 1)

    def score(self, skipped: int = 0) -> Score:
        """The score of the text so far.

        Args:
            skipped: characters that were left out.

        Raises:
            TooShort: there were fewer than two characters.
        """
        nats = self.nats_per_character
        return Score(nats, to_bits(nats), self.characters, skipped, adapted=self._learner is not None)


def score_ids(step: Step, ids: np.ndarray) -> float:
    """The mean nats per character of a token sequence: int32 [n], n at least 2."""
    scorer = Scorer(step)
    scorer.add(ids)
    return scorer.nats_per_character


@dataclass(frozen=True)
class ProbeResult:
    """The probe's loss on this machine, and the one that the manifest records, both in nats per character."""

    nats_per_character: float
    expected_nats_per_character: float
    tolerance: float

    @property
    def passed(self) -> bool:
        return abs(self.nats_per_character - self.expected_nats_per_character) <= self.tolerance


def run_probe(step: Step, file: ModelFile) -> ProbeResult:
    """Run the manifest's probe: 64 token ids, 63 predictions, from a zero state."""
    probe = file.manifest.probe
    nats = score_ids(step, np.array(probe.token_ids, np.int32))
    return ProbeResult(nats, probe.nats_per_character, probe.tolerance)


def require_probe(step: Step, file: ModelFile) -> ProbeResult:
    """Run the probe, and require its recorded loss.

    Raises:
        CharedgeError: the loss differs from the recorded one: the model would not behave as on the workstation.
    """
    result = run_probe(step, file)
    if not result.passed:
        raise CharedgeError(
            f"{file.path} does not work with {step.interpreter} on this machine (the probe's loss is "
            f"{result.nats_per_character:.4f} nats per character, the file records {result.expected_nats_per_character:.4f}): "
            "convert the run again, or use another interpreter."
        )
    return result


def to_bits(nats: float) -> float:
    """Nats in bits."""
    return nats / math.log(2)
