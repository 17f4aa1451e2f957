"""Settings by name: what `charedge train` does where no option says otherwise."""

from __future__ import annotations

from typing import Any

DEFAULT = "base"

COMMON: dict[str, Any] = {
    "cell": "gru",
    "layers": 2,
    "embedding_dim": 256,
    "sequence_length": 100,
    "validation_split": 0.1,
    "normalization": "NFC",
    "dropout": 0.0,
    "output_dropout": None,
    "embedding_dropout": 0.0,
    "weight_drop": 0.0,
    "weight_decay": 0.0,
    "batch_size": 64,
    "batching": "carried",
    "learning_rate": 0.008,
    "learning_rate_decay": "cosine",
    "warmup": 100,
    "clip_norm": 1.0,
    "average": 0.0,
    "patience": 0,
    "min_count": 1,
    "epochs": 10,
}
"""What our own presets share."""

PLAIN: dict[str, Any] = {"batching": "shuffled", "learning_rate_decay": "none", "warmup": 0, "clip_norm": 0.0}
"""What notebooks do: shuffled windows from zero states, one learning rate."""

PRESETS: dict[str, dict[str, Any]] = {
    "small": {**COMMON, "units": 160, "embedding_dim": 128, "learning_rate": 0.012, "dropout": 0.05, "weight_drop": 0.05},
    "base": {**COMMON, "units": 304, "dropout": 0.1, "weight_drop": 0.1},
    "large": {
        **COMMON,
        "units": 608,
        "learning_rate": 0.005,
        "dropout": 0.25,
        "weight_drop": 0.2,
        "embedding_dropout": 0.05,
        "epochs": 32,
    },
    "tutorial": {**COMMON, **PLAIN, "layers": 1, "units": 1024, "learning_rate": 0.001, "epochs": 20},
    "charrnn": {
        **COMMON,
        **PLAIN,
        "cell": "lstm",
        "units": 256,
        "embedding_dim": 128,
        "dropout": 0.2,
        "output_dropout": 0.0,
        "learning_rate": 0.001,
        "batch_size": 512,
        "epochs": 20,
        "validation_split": 0.2,
        "normalization": "none",
    },
}
