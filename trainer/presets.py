"""Presets of a training: named changes to the defaults in `Config`, and `auto`, which chooses them by the text's length."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

AUTO = "auto"
"""The preset that chooses by the number of characters to train on."""

NOTEBOOK: dict[str, Any] = {
    "batching": "shuffled",
    "learning_rate_decay": "none",
    "warmup": 0,
    "clip_norm": 0.0,
    "dropout": 0.0,
    "weight_drop": 0.0,
    "weight_decay": 0.0,
    "learning_rate": 0.001,
    "epochs": 20,
}
"""Options of the usual notebooks: shuffled windows from zero states, constant learning rate, no dropout."""

PRESETS: dict[str, dict[str, Any]] = {
    "base": {},
    "small": {
        "units": 160,
        "embedding_dim": 128,
        "learning_rate": 0.012,
        "dropout": 0.05,
        "weight_drop": 0.05,
        "weight_decay": 0.1,
    },
    "wide": {"units": 408},
    "large": {
        "units": 608,
        "learning_rate": 0.005,
        "dropout": 0.25,
        "weight_drop": 0.2,
        "embedding_dropout": 0.05,
        "weight_decay": 0.2,
        "epochs": 24,
    },
    "tutorial": {**NOTEBOOK, "layers": 1, "units": 1024},
    "charrnn": {
        **NOTEBOOK,
        "cell": "lstm",
        "units": 256,
        "embedding_dim": 128,
        "dropout": 0.2,
        "output_dropout": 0.0,
        "batch_size": 512,
        "validation_split": 0.2,
        "normalization": "none",
    },
}


WARM: tuple[tuple[float, dict[str, Any]], ...] = (
    (200, {"learning_rate": 0.005, "dropout": 0.05, "weight_drop": 0.05}),
    (400, {"learning_rate": 0.003, "dropout": 0.1, "weight_drop": 0.1}),
    (float("inf"), {"learning_rate": 0.002, "dropout": 0.2, "weight_drop": 0.2}),
)
"""Options of `auto` for a start from a model of up to so many units: the noise of the preset of its size, and 0.4 of its rate.

More noise than a network was trained with disturbs it: a small one then learns more slowly than from random weights.
"""


@dataclass(frozen=True)
class Length:
    """The preset of texts up to some length, with changes; docs/training-experiments.md has the measurements behind it."""

    characters: float
    """The most characters to train on."""
    preset: str
    changes: dict[str, Any] = field(default_factory=dict)
    """Options that differ from the preset."""
    warm_epochs: int | None = None
    """Epochs of a training that starts from a model; None trains it as from random weights."""

    def values(self, initial_units: int | None = None) -> dict[str, Any]:
        """The options that differ from the defaults, by name.

        Args:
            initial_units: units of the model that the training starts from; None starts from random weights.
        """
        values = {**PRESETS[self.preset], **self.changes}
        if initial_units is None or self.warm_epochs is None:
            return values
        gentle = next(options for units, options in WARM if initial_units <= units)
        return {**values, **gentle, "epochs": self.warm_epochs}


SHORT = {"dropout": 0.3, "weight_drop": 0.3, "batch_size": 16, "learning_rate": 0.006, "patience": 8}
MIDDLE = {"dropout": 0.2, "weight_drop": 0.2, "batch_size": 32, "learning_rate": 0.008, "patience": 8}
LONG = {"dropout": 0.1, "weight_drop": 0.1, "batch_size": 32, "learning_rate": 0.01}
LENGTHS = (
    Length(20_000, "small", {**SHORT, "epochs": 45}, warm_epochs=20),
    Length(60_000, "small", {**SHORT, "epochs": 30}, warm_epochs=15),
    Length(200_000, "small", {**MIDDLE, "epochs": 18}, warm_epochs=10),
    Length(400_000, "small", {**LONG, "epochs": 12}, warm_epochs=8),
    Length(float("inf"), "base"),
)
"""What `auto` chooses: the first that is long enough."""


def by_length(characters: int) -> Length:
    """What `auto` chooses for a text.

    Args:
        characters: the number of characters to train on.
    """
    return next(length for length in LENGTHS if characters <= length.characters)


def preset_values(preset: str, characters: int | None = None, initial_units: int | None = None) -> dict[str, Any]:
    """The options that differ from the defaults in a preset, by name.

    Args:
        preset: a name in `PRESETS`, or `auto`.
        characters: the number of characters to train on, by which `auto` chooses; None as long as it is unknown.
        initial_units: units of the model that the training starts from, which is another choice for `auto`.
    """
    if preset != AUTO:
        return PRESETS[preset]
    return {} if characters is None else by_length(characters).values(initial_units)
