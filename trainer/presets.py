"""Presets of a training: named changes to the defaults in `Config`."""

from __future__ import annotations

from typing import Any

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
