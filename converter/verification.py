"""Comparison of model files with the Keras model, on every installed interpreter."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields

import numpy as np

from ..runtime.interpreter import Step
from ..runtime.manifest import PROBE_LENGTH, Probe, Verified
from ..runtime.progress import Progress, Report, no_progress
from ..runtime.scoring import log_softmax, score_ids

DECIMALS = 6  # of figures in the manifest, so that rounding in the last bit does not change the file
BLOCK = 1000  # characters between two reports


@dataclass(frozen=True)
class Measurement(Verified):
    """The quality and speed of a file on one interpreter."""

    microseconds_per_character: float = field(kw_only=True)
    """Time of a step, without sampling. Not recorded in the file, so that the same run gives the same bytes."""

    @property
    def quality(self) -> Verified:
        """The part that the file records."""
        return Verified(**{name.name: getattr(self, name.name) for name in fields(Verified)})


class Comparison:
    """A comparison of a file with the Keras model on one interpreter: sums over a text that comes in parts."""

    def __init__(self, step: Step) -> None:
        self._step, self._state = step, step.zeros()
        self._predictions, self._agreements, self._seconds = 0, 0, 0.0
        self._nats, self._reference_nats, self._divergence, self._difference = 0.0, 0.0, 0.0, 0.0

    def add(self, ids: np.ndarray, reference: np.ndarray) -> None:
        """Read the next part of the text.

        Args:
            ids: int32 [n + 1]; the last one is only predicted, and is the first of the next part.
            reference: float32 [n, V], the Keras model's logits after each of the other ids.
        """
        logits = np.empty_like(reference)
        start = time.perf_counter()
        for i, token in enumerate(ids[:-1].reshape(-1, 1)):
            self._step.advance(token, self._state, logits[i : i + 1])
        self._seconds += time.perf_counter() - start
        here, there = log_softmax(logits), log_softmax(reference)
        rows = np.arange(len(reference))
        self._predictions += len(reference)
        self._nats -= float(here[rows, ids[1:]].sum())
        self._reference_nats -= float(there[rows, ids[1:]].sum())
        self._divergence += float((np.exp(there) * (there - here)).sum())
        self._agreements += int((logits.argmax(axis=1) == reference.argmax(axis=1)).sum())
        self._difference = max(self._difference, float(np.abs(logits - reference).max()))

    def measurement(self) -> Measurement:
        """The means over the text so far."""

        def mean(total: float) -> float:
            return round(total / self._predictions, DECIMALS)

        return Measurement(
            interpreter=self._step.interpreter.name,
            version=self._step.interpreter.version,
            characters=self._predictions + 1,
            nats_per_character=mean(self._nats),
            reference_nats_per_character=mean(self._reference_nats),
            kl_divergence=max(0.0, mean(self._divergence)),
            top_1_agreement=mean(self._agreements),
            largest_logit_difference=round(self._difference, DECIMALS),
            microseconds_per_character=round(self._seconds / self._predictions * 1e6, 1),
        )


def measure(
    candidates: Sequence[Sequence[Step]],
    ids: np.ndarray,
    reference: Iterable[np.ndarray],
    progress: Progress = no_progress,
) -> list[list[Measurement]]:
    """Compare files with the Keras model, each on several interpreters.

    Args:
        candidates: for each file, its step on each interpreter.
        ids: int32 [n], n at least 2.
        reference: the Keras model's logits after each id but the last, in parts of float32 [any, V].
        progress: called with reports on the characters compared.

    Returns:
        For each file a measurement on each interpreter.
    """
    comparisons = [[Comparison(step) for step in steps] for steps in candidates]
    position = 0
    progress(Report("verifying", 0, len(ids), "characters"))
    for logits in _blocks(reference):
        part = ids[position : position + len(logits) + 1]
        for comparison in (c for of_file in comparisons for c in of_file):
            comparison.add(part, logits)
        position += len(logits)
        progress(Report("verifying", position + 1, len(ids), "characters"))
    return [[comparison.measurement() for comparison in of_file] for of_file in comparisons]


def _blocks(parts: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """The rows of arrays, at most `BLOCK` at a time."""
    for part in parts:
        for start in range(0, len(part), BLOCK):
            yield part[start : start + BLOCK]


def record_probe(steps: Sequence[Step], ids: np.ndarray, tolerance: float) -> tuple[Probe, float]:
    """Make a probe, with the loss that it has on the first of a file's steps.

    Args:
        steps: the file on each interpreter.
        ids: int32 [n], of which the first are used, repeated if they are too few.
        tolerance: maximum difference of its loss on another machine, in nats per character.

    Returns:
        The probe, and the largest difference of its loss on another of the steps; NaN if a loss is.
    """
    probe_ids = np.resize(ids, PROBE_LENGTH)
    losses = [round(score_ids(step, probe_ids), DECIMALS) for step in steps]
    return Probe([int(i) for i in probe_ids], losses[0], tolerance), float(np.abs(np.subtract(losses, losses[0])).max())
