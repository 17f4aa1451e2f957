"""From a model's weights to the bytes of a verified model file: step graph, quantisation, metadata, verification. No TensorFlow."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from ..runtime.package import FORMAT_VERSION, PROBE_LENGTH, Interpreter, Manifest, Package, Probe
from ..runtime.text import Normalization
from ..runtime.vocabulary import Vocabulary
from .metadata import Card, append_files, build_flatbuffer
from .quantization import PROFILES, quantize
from .step import Weights, build_step
from .verification import Measurement, measure, record_probe


@dataclass(frozen=True)
class Source:
    """What a model file says of where it comes from and how its text is treated."""

    name: str
    author: str
    license: str
    created: str
    normalization: Normalization
    unknown: str
    start_text: str
    training: dict[str, Any]


@dataclass(frozen=True)
class Assembled:
    """A model file's bytes, and what was measured of it."""

    data: bytes
    measurements: list[Measurement]


def assemble(
    weights: Weights, vocabulary: Vocabulary, source: Source, quantization: str, held_out: np.ndarray, reference: float
) -> Assembled:
    """Make a model file and measure it.

    Args:
        weights: of the trained model.
        vocabulary: V tokens.
        source: what to say of the model.
        quantization: a name in `PROFILES`.
        held_out: int32 [n], ids that were not trained on, n at least 2; the first of them become the probe.
        reference: the trained model's own nats per character over them, the state carried.

    Raises:
        CharedgeError: no interpreter that the profile is good for is installed.
    """
    profile = PROFILES[quantization]
    card = _card(weights, source)
    flatbuffer = build_flatbuffer(quantize(build_step(weights), profile), card)
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        name=source.name,
        created_by=f"charedge {version('charedge')}",
        created=source.created,
        license=source.license,
        cell=weights.cell,
        layers=len(weights.layers),
        units=weights.units,
        embedding_dim=weights.embedding.shape[1],
        state_size=weights.state_size,
        vocabulary_size=weights.vocabulary_size,
        normalization=source.normalization,
        unknown=source.unknown,
        start_text=source.start_text,
        quantization=quantization,
        input_table_folded=weights.folding_pays(),
        flatbuffer_sha256=hashlib.sha256(flatbuffer).hexdigest(),
        interpreters=[Interpreter(name, minimum) for name, minimum in profile.interpreters.items()],
        verified=[],
        probe=Probe([0] * PROBE_LENGTH, 0.0, 0.0),
        training=source.training,
    )
    package = Package(Path(f"{source.name}.tflite"), manifest, vocabulary, flatbuffer)
    measurements = measure(package, held_out, reference)
    manifest = replace(
        manifest,
        verified=[measurement.quality for measurement in measurements],
        probe=record_probe(package, held_out, profile.probe_tolerance, measurements[0].quality.interpreter),
    )
    return Assembled(append_files(flatbuffer, vocabulary, manifest), measurements)


def _card(weights: Weights, source: Source) -> Card:
    description = (
        f"A character-level language model: {weights.cell.upper()} of {len(weights.layers)} x {weights.units} units "
        f"over {weights.vocabulary_size} tokens, one step at a time."
    )
    return Card(source.name, description, source.created[:10], source.author, source.license)
