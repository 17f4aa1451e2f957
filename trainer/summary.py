"""What the losses of a finished training mean: whether its text will have words, and what would make it better."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from .run import Epoch, Run, kept_epoch

CONTEXT = 2
"""Characters that the model of comparison sees: Shannon's (1948) third-order approximation, whose text has hardly any words."""
COMPARED_CHARACTERS = 20_000
"""Held-out characters that are compared, as many as `convert` verifies a file on."""
UNFINISHED = 0.1
"""A training loss, measured with noise, less than this below the validation loss: the network has memorised nothing yet."""
LATE = 0.85
"""Share of the epochs after which the best one comes if the validation loss was still falling."""
MEMORISED = 0.5
"""A training loss more than this below the validation loss: the network knows the text better than its language."""
OVERFITTED = 0.03
"""A rise of the validation loss after its best epoch by more than this: the training went on while it only memorised."""

Finding = Literal["memorised", "unfinished", "good"]


@dataclass(frozen=True)
class Assessment:
    """What the losses of a training say about it."""

    train: float
    """Training loss of the epoch whose weights are kept, in nats per character."""
    validation: float
    """Validation loss of that epoch, in nats per character."""
    trigram: float
    """From `trigram_loss` on the held-out text: the loss that is reached without any words."""
    finding: Finding
    """Whether the network memorised the text, could still learn from it, or is about as good as the text allows."""

    @property
    def has_words(self) -> bool:
        """Whether the text that the model generates will have words."""
        return self.validation < self.trigram


def assess_run(run: Run) -> Assessment:
    """Assess a run by its history and its texts; takes a fraction of a second."""
    history = run.history()
    return assess(history, trigram_loss(run.calibration(), run.held_out()[:COMPARED_CHARACTERS]), kept_epoch(run.config(), history))


def assess(history: Sequence[Epoch], trigram: float, kept: Epoch | None = None) -> Assessment:
    """Assess a training by its losses.

    Args:
        history: the finished epochs, at least one.
        trigram: from `trigram_loss`.
        kept: the epoch whose weights are kept; by default the best one.
    """
    best = min(history, key=lambda epoch: epoch.validation_nats_per_character)
    kept = kept or best
    train, validation = kept.train_nats_per_character, kept.validation_nats_per_character
    finding: Finding = "good"
    risen = history[-1].validation_nats_per_character - best.validation_nats_per_character
    if validation - train > MEMORISED or risen > OVERFITTED:
        finding = "memorised"
    elif validation - train < UNFINISHED and best.epoch > LATE * len(history):
        finding = "unfinished"
    return Assessment(train, validation, trigram, finding)


def trigram_loss(train: str, held_out: str) -> float:
    """Nats per character of a model that predicts from the last two characters, and goes on counting in what it has read.

    The counts are interpolated with those of shorter contexts (Witten and Bell 1991, method C).

    Args:
        train: text that is read first.
        held_out: text that is then predicted, one character after the other; at least one.
    """
    counts: list[defaultdict[str, defaultdict[str, int]]] = [defaultdict(lambda: defaultdict(int)) for _ in range(CONTEXT + 1)]
    text, uniform = train + held_out, 1 / (len(set(train + held_out)) + 1)
    total = 0.0
    for i, character in enumerate(text):
        seen = [counts[k][text[i - k : i]] for k in range(min(i, CONTEXT) + 1)]
        if i >= len(train):
            probability = uniform
            for following in seen:
                number, distinct = sum(following.values()), len(following)
                if number:
                    probability = (following.get(character, 0) + distinct * probability) / (number + distinct)
            total -= math.log(probability)
        for following in seen:
            following[character] += 1
    return total / len(held_out)
