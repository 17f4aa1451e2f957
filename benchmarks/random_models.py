"""Models with random weights: they cost as much as trained ones of the same shape."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from charedge.converter.build import build_model_files
from charedge.converter.description import Description
from charedge.converter.profiles import PROFILES
from charedge.converter.step import Weights
from charedge.runtime.vocabulary import Vocabulary

VOCABULARY = Vocabulary.of("\n !$&',-.3:;?ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")  # 65, as Shakespeare has
EMBEDDING_DIM = 256
DESCRIPTION = Description("benchmark", "", "CC0-1.0", "", "", "NFC", "skip", "\n", {})
BYTES = {"float32": 4.0, "float16": 4.0, "int8": 1.0, "int8-static": 1.0, "int4": 0.5}
"""Bytes of a weight in memory: float16 becomes float32 when a file is loaded."""


def random_weights(units: int, layers: int = 1) -> Weights:
    """A GRU with random weights."""
    return Weights.random("gru", layers, units, len(VOCABULARY), EMBEDDING_DIM)


def random_model(folder: Path, units: int, quantization: str, layers: int = 1) -> Path:
    """The model file of `random_weights`."""
    ids = np.random.default_rng(0).integers(1, len(VOCABULARY), 100).astype(np.int32)
    path = folder / f"gru-{layers}x{units}-{quantization}.tflite"
    unknown_reference = [np.zeros((len(ids) - 1, len(VOCABULARY)), np.float32)]
    weights = random_weights(units, layers)
    (made,) = build_model_files(weights, VOCABULARY, DESCRIPTION, [quantization], ids, unknown_reference, ids)
    path.write_bytes(made.data)
    return path


def bytes_read(weights: Weights, quantization: str) -> int:
    """Bytes of the weights that one step reads: all matrices, and one row of the embedding or the folded input table."""
    inner, outer = BYTES[PROFILES[quantization].inner], BYTES[PROFILES[quantization].outer]
    first, *others = weights.layers
    recurrent = first.recurrent_kernel.size + sum(layer.kernel.size + layer.recurrent_kernel.size for layer in others)
    columns = first.kernel.shape[1]
    lookup = columns if weights.folding_pays() else weights.embedding.shape[1] + first.kernel.size
    return round(inner * recurrent + outer * (lookup + weights.output_kernel.size))
