"""How well a model predicts a text: nats per character, and the probe that every file must pass before it is used."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .errors import CharedgeError
from .interpreter import Step
from .package import Package


@dataclass(frozen=True)
class Score:
    """What a model makes of a text. N characters give N - 1 predictions, from a zero state, softmax over all V tokens."""

    nats_per_character: float
    bits_per_character: float
    characters: int
    """N, without those that were skipped."""
    skipped_characters: int
    """Characters outside the vocabulary that were left out."""


def nats_of(logits: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """The cross-entropy of each prediction: -log softmax(logits)[target].

    Args:
        logits: float [n, V].
        targets: int [n].

    Returns:
        float64 [n], in nats.
    """
    logits = logits.astype(np.float64)
    top = logits.max(axis=1, keepdims=True)
    log_sum = np.log(np.exp(logits - top).sum(axis=1)) + top[:, 0]
    return log_sum - logits[np.arange(len(targets)), targets]


def score_ids(step: Step, ids: np.ndarray, block: int = 256) -> float:
    """The mean nats per character of a token sequence, the state carried through it from zeros.

    Args:
        step: the model.
        ids: int32 [n], n at least 2.
        block: how many steps' logits are kept before they are summed up.
    """
    state, total = step.zeros(), 0.0
    logits = np.empty((block, step.vocabulary_size), np.float32)
    inputs = ids[:-1].reshape(-1, 1)
    for start in range(0, len(inputs), block):
        tokens = inputs[start : start + block]
        for i, token in enumerate(tokens):
            logits[i : i + 1], state = step(token, state)
        total += float(nats_of(logits[: len(tokens)], ids[start + 1 : start + 1 + len(tokens)]).sum())
    return total / len(inputs)


@dataclass(frozen=True)
class ProbeResult:
    """The probe's loss on this machine beside the one in the manifest."""

    nats_per_character: float
    expected_nats_per_character: float
    tolerance: float

    @property
    def passed(self) -> bool:
        return abs(self.nats_per_character - self.expected_nats_per_character) <= self.tolerance


def run_probe(step: Step, package: Package) -> ProbeResult:
    """Run the manifest's probe: 65 token ids would give 64 predictions, 64 give 63, from a zero state."""
    probe = package.manifest.probe
    nats = score_ids(step, np.array(probe.token_ids, np.int32))
    return ProbeResult(nats, probe.nats_per_character, probe.tolerance)


def require_probe(step: Step, package: Package) -> ProbeResult:
    """Run the probe.

    Raises:
        CharedgeError: its loss does not come out as recorded: this machine would not write what the workstation wrote.
    """
    result = run_probe(step, package)
    if not result.passed:
        raise CharedgeError(
            f"{package.path} does not work with {step.interpreter} on this machine (the probe's loss is "
            f"{result.nats_per_character:.4f} nats, recorded were {result.expected_nats_per_character:.4f}): "
            "convert the run again, or use another interpreter."
        )
    return result


def to_bits(nats: float) -> float:
    return nats / math.log(2)
