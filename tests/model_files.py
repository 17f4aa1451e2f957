"""Model files with random weights, for the tests and for programs beside them.

python tests/model_files.py FOLDER    writes one for every quantisation and cell
"""

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import reference

CHARACTERS = "\n !',.:ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def build_model_file(
    path, quantization="float32", characters=CHARACTERS, normalization="NFC", unknown="skip", start_text="\n", **shape
):
    """A whole model file with random weights, its reference loss computed by numpy."""
    from charedge.converter.assembly import Source, assemble
    from charedge.converter.step import Weights
    from charedge.runtime.vocabulary import Vocabulary

    vocabulary = Vocabulary.of(characters)
    weights = Weights.random(vocabulary_size=len(vocabulary), **shape)
    held_out = np.random.default_rng(1).integers(1, len(vocabulary), 300).astype(np.int32)
    source = Source(
        path.stem,
        "the tests",
        "CC0-1.0",
        "2026-01-02T03:04:05+00:00",
        normalization,
        unknown,
        start_text,
        {"corpus": {"files": []}},
    )
    logits, _ = reference.run_model(weights, held_out[:-1])
    (result,) = assemble(weights, vocabulary, source, [quantization], held_out, [logits.astype(np.float32)], held_out)
    path.write_bytes(result.data)
    return SimpleNamespace(path=path, weights=weights, vocabulary=vocabulary, held_out=held_out, result=result)


if __name__ == "__main__":
    from charedge.converter.quantization import PROFILES

    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for quantization in PROFILES:
        build_model_file(folder / f"gru-{quantization}.tflite", quantization)
        build_model_file(folder / f"lstm-{quantization}.tflite", quantization, cell="lstm", layers=2)
