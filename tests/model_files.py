"""Model files with random weights, for the tests and for programs beside them.

python tests/model_files.py FOLDER [--units N]    writes one for every quantisation and cell
"""

import argparse
import hashlib
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import reference
from charedge.runtime.text import Normalization

CHARACTERS = "\n !',.:ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def build_model_file(
    path,
    quantization="float32",
    characters=CHARACTERS,
    normalization: Normalization = "NFC",
    unknown="skip",
    start_text="\n",
    **shape,
):
    """A whole model file with random weights, its reference loss computed by numpy."""
    from charedge.converter.build import build_model_files
    from charedge.converter.description import Description
    from charedge.converter.step import Weights
    from charedge.runtime.vocabulary import Vocabulary

    vocabulary = Vocabulary.of(characters)
    weights = Weights.random(vocabulary_size=len(vocabulary), **shape)
    held_out = np.random.default_rng(1).integers(1, len(vocabulary), 300).astype(np.int32)
    description = Description(
        path.stem,
        "the tests",
        "CC0-1.0",
        "",
        "2026-01-02T03:04:05+00:00",
        normalization,
        unknown,
        start_text,
        {"corpus": {"files": []}},
    )
    logits, _ = reference.run_model(weights, held_out[:-1])
    (result,) = build_model_files(weights, vocabulary, description, [quantization], held_out, [logits.astype(np.float32)], held_out)
    path.write_bytes(result.data)
    return SimpleNamespace(path=path, weights=weights, vocabulary=vocabulary, held_out=held_out, result=result)


def kept_model_file(folder, **options):
    """The same, made once and kept in a folder, so that a machine without the converter has it too."""
    path = folder / f"{hashlib.sha256(repr(sorted(options.items())).encode()).hexdigest()[:16]}.tflite"
    if not path.with_suffix(".npz").exists():
        made = build_model_file(path, **options)
        _save_arrays(path.with_suffix(".npz"), made)
    return _load_arrays(path)


def _save_arrays(path, made):
    layers = {f"{i}.{name}": value for i, layer in enumerate(made.weights.layers) for name, value in asdict(layer).items()}
    layers = {key: value for key, value in layers.items() if value is not None}
    rest = {name: getattr(made.weights, name) for name in ("embedding", "output_kernel", "output_bias")}
    np.savez(path, held_out=made.held_out, **rest, **layers)


def _load_arrays(path):
    from charedge.runtime.model_file import read_model_file

    contents = read_model_file(path)
    with np.load(path.with_suffix(".npz")) as content:
        arrays = dict(content)
    names = ("kernel", "recurrent_kernel", "input_bias", "recurrent_bias")
    layers = [SimpleNamespace(**{n: arrays.get(f"{i}.{n}") for n in names}) for i in range(contents.manifest.layers)]
    rest = {name: arrays[name] for name in ("embedding", "output_kernel", "output_bias")}
    weights = SimpleNamespace(cell=contents.manifest.cell, layers=layers, **rest)
    return SimpleNamespace(path=path, weights=weights, vocabulary=contents.vocabulary, held_out=arrays["held_out"])


if __name__ == "__main__":
    from charedge.converter.profiles import PROFILES

    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--units", type=int, default=24)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    for profile in PROFILES:
        build_model_file(options.folder / f"gru-{profile}.tflite", profile, units=options.units)
        build_model_file(options.folder / f"lstm-{profile}.tflite", profile, cell="lstm", layers=2, units=options.units)
