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
    "learning_rate": 0.001,
    "epochs": 20,
}
"""Options of the usual notebooks: shuffled windows from zero states, constant learning rate, no dropout."""

PRESETS: dict[str, dict[str, Any]] = {
    "base": {},
    "small": {"units": 160, "embedding_dim": 128, "learning_rate": 0.012, "dropout": 0.05, "weight_drop": 0.05},
    "large": {
        "units": 608,
        "learning_rate": 0.005,
        "dropout": 0.25,
        "weight_drop": 0.2,
        "embedding_dropout": 0.05,
        "epochs": 32,
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


@dataclass(frozen=True)
class Length:
    """The preset of texts up to some length, with changes; docs/training-experiments.md has the measurements behind it."""

    characters: float
    """The most characters to train on."""
    preset: str
    changes: dict[str, Any] = field(default_factory=dict)
    """Options that differ from the preset."""
    warm: dict[str, Any] = field(default_factory=dict)
    """Options that differ from these for a training that starts from a model."""

    def values(self, warm: bool) -> dict[str, Any]:
        """The options that differ from the defaults, by name.

        Args:
            warm: whether the training starts from a model.
        """
        return {**PRESETS[self.preset], **self.changes, **(self.warm if warm else {})}


SHORT = {"dropout": 0.3, "weight_drop": 0.3, "batch_size": 16, "learning_rate": 0.006, "patience": 8}
MIDDLE = {"dropout": 0.2, "weight_drop": 0.2, "batch_size": 32, "learning_rate": 0.008, "patience": 8}
WARM = {"dropout": 0.2, "weight_drop": 0.2, "learning_rate": 0.002}
LENGTHS = (
    Length(20_000, "small", {**SHORT, "epochs": 60}, {**WARM, "epochs": 15}),
    Length(60_000, "small", {**SHORT, "epochs": 30}, {**WARM, "epochs": 8}),
    Length(200_000, "small", {**MIDDLE, "epochs": 18}, {**WARM, "epochs": 6}),
    Length(400_000, "small", {"dropout": 0.1, "weight_drop": 0.1, "epochs": 12, "batch_size": 32, "learning_rate": 0.01}, WARM),
    Length(float("inf"), "base"),
)
"""What `auto` chooses: the first that is long enough."""


def by_length(characters: int) -> Length:
    """What `auto` chooses for a text.

    Args:
        characters: the number of characters to train on.
    """
    return next(length for length in LENGTHS if characters <= length.characters)


def preset_values(preset: str, characters: int | None = None, warm: bool = False) -> dict[str, Any]:
    """The options that differ from the defaults in a preset, by name.

    Args:
        preset: a name in `PRESETS`, or `auto`.
        characters: the number of characters to train on, by which `auto` chooses; None as long as it is unknown.
        warm: whether the training starts from a model, which is another choice for `auto`.
    """
    if preset != AUTO:
        return PRESETS[preset]
    return {} if characters is None else by_length(characters).values(warm)
