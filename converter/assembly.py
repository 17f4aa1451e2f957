"""From a model's weights to the bytes of verified model files: step graph, quantisation, metadata, verification. No TensorFlow."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from ..runtime.package import FORMAT_VERSION, PROBE_LENGTH, Interpreter, Manifest, Package, Probe, Verified, parse_package
from ..runtime.text import Normalization
from ..runtime.vocabulary import Vocabulary
from .calibration import second_moments
from .graph import Graph
from .metadata import Card, append_files, build_flatbuffer
from .quantization import PROFILES, Moments, quantize
from .step import Weights, build_step
from .structure import check_structure
from .verification import Measurement, measure, record_probe


@dataclass(frozen=True)
class Source:
    """What a model file says of where it comes from and how its text is treated."""

    name: str
    author: str
    license: str
    notes: str
    created: str
    normalization: Normalization
    unknown: str
    start_text: str
    training: dict[str, Any]


@dataclass(frozen=True)
class Assembled:
    """A model file's bytes, and what was measured of it."""

    quantization: str
    data: bytes
    measurements: list[Measurement]
    """On each interpreter that the file names and that is installed here."""

    @property
    def worst(self) -> Verified:
        """The quality on the interpreter where the file loses most."""
        return max((measurement.quality for measurement in self.measurements), key=lambda quality: quality.loss)


def assemble(
    weights: Weights,
    vocabulary: Vocabulary,
    source: Source,
    quantizations: Sequence[str],
    held_out: np.ndarray,
    reference: Iterable[np.ndarray],
    calibration: np.ndarray | None = None,
    progress: Callable[[str, int, int], object] = lambda stage, characters, total: None,
) -> list[Assembled]:
    """Make a model file of each quantisation, and measure them side by side.

    Args:
        weights: of the trained model.
        vocabulary: V tokens.
        source: what to say of the model.
        quantizations: names in `PROFILES`.
        held_out: int32 [n], ids that were not trained on, n at least 2; the first of them become the probe.
        reference: the trained model's own logits after each of them but the last, the state carried, in parts of float32 [any, V].
        calibration: int32 [m], ids that were trained on, by which 4-bit weights are rounded.
        progress: told what is being done, how many characters of the text are, and of how many.

    Raises:
        CharedgeError: no interpreter that a profile is good for is installed.
    """
    graph, card = build_step(weights), _card(weights, source)
    needs_moments = any(PROFILES[quantization].inner == "int4" for quantization in quantizations)
    moments = {}
    if needs_moments and calibration is not None:
        moments = second_moments(graph, calibration, partial(progress, "calibrating"))
    packages = [_package(graph, card, weights, vocabulary, source, quantization, moments) for quantization in quantizations]
    measured = measure(packages, held_out, reference, partial(progress, "verifying"))
    return [_finish(package, measurements, held_out) for package, measurements in zip(packages, measured, strict=True)]


def _package(
    graph: Graph, card: Card, weights: Weights, vocabulary: Vocabulary, source: Source, quantization: str, moments: Moments
) -> Package:
    """A model file as yet without its measurements."""
    profile = PROFILES[quantization]
    flatbuffer = build_flatbuffer(quantize(graph, profile, moments), card)
    check_structure(flatbuffer, profile)
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
    return Package(Path(f"{source.name}.tflite"), manifest, vocabulary, flatbuffer)


def _finish(package: Package, measurements: list[Measurement], held_out: np.ndarray) -> Assembled:
    """The file with its measurements and its probe in the manifest."""
    quantization = package.manifest.quantization
    tolerance, interpreter = PROFILES[quantization].probe_tolerance, measurements[0].quality.interpreter
    manifest = replace(
        package.manifest,
        verified=[measurement.quality for measurement in measurements],
        probe=record_probe(package, held_out, tolerance, interpreter),
    )
    data = append_files(package.flatbuffer, package.vocabulary, manifest)
    parse_package(io.BytesIO(data), package.path)  # no file leaves here that a device would refuse
    return Assembled(quantization, data, measurements)


def _card(weights: Weights, source: Source) -> Card:
    description = (
        f"A character-level language model: {weights.cell.upper()} of {len(weights.layers)} x {weights.units} units "
        f"over {weights.vocabulary_size} tokens, one step at a time. {source.notes}"
    ).strip()
    return Card(source.name, description, source.created[:10], source.author, source.license)
