"""Build verified model files from a model's weights: step graph, quantization, metadata, verification. No TensorFlow."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np

from ..runtime.errors import CharedgeError
from ..runtime.interpreter import Step, installed_interpreters
from ..runtime.manifest import FORMAT_VERSION, Manifest, Probe, RequiredInterpreter, Verified
from ..runtime.model_file import ModelFile, parse_model_file
from ..runtime.progress import Progress, no_progress
from ..runtime.vocabulary import Vocabulary
from .check import check_structure
from .description import Description
from .graph import Graph
from .metadata import build_flatbuffer
from .profiles import PROFILES, Profile
from .quantization import Moments, quantize
from .second_moments import second_moments
from .step import Weights, build_step
from .verification import Measurement, measure, record_probe


@dataclass(frozen=True)
class Built:
    """The bytes of a model file, and its measurements."""

    quantization: str
    data: bytes
    measurements: list[Measurement]
    """One on each installed interpreter that the file names."""

    @property
    def worst(self) -> Measurement:
        """The measurement with the largest loss against Keras."""
        return max(self.measurements, key=lambda measurement: measurement.loss)


def build_model_files(
    weights: Weights,
    vocabulary: Vocabulary,
    description: Description,
    quantizations: Sequence[str],
    held_out: np.ndarray,
    reference: Iterable[np.ndarray],
    calibration: np.ndarray | None = None,
    progress: Progress = no_progress,
) -> list[Built]:
    """Build a model file of each quantization, and measure them side by side.

    Args:
        weights: the weights of the trained model.
        vocabulary: V tokens.
        description: the name, author, licence and others of the model.
        quantizations: names in `PROFILES`.
        held_out: int32 [n], n at least 2: ids of held-out text; the first of them become the probe.
        reference: the Keras model's logits after each of these ids but the last, the state carried, in parts of float32 [any, V].
        calibration: int32 [m], ids of the training text, by which 4-bit weights are rounded.
        progress: called with reports on the characters read in each stage.

    Returns:
        The files, in the order of `quantizations`.

    Raises:
        CharedgeError: no interpreter that a profile names is installed.
    """
    graph, moments = build_step(weights), {}
    if calibration is not None and any(PROFILES[quantization].inner == "int4" for quantization in quantizations):
        moments = second_moments(graph, calibration, progress)
    flatbuffers = [_build_flatbuffer(graph, weights, description, PROFILES[name], moments) for name in quantizations]
    steps = [_steps(flatbuffer, weights, PROFILES[name]) for flatbuffer, name in zip(flatbuffers, quantizations, strict=True)]
    measured = measure(steps, held_out, reference, progress)
    built = []
    for name, flatbuffer, (step, *_), measurements in zip(quantizations, flatbuffers, steps, measured, strict=True):
        verified = [measurement.quality for measurement in measurements]
        probe = record_probe(step, held_out, PROFILES[name].probe_tolerance)
        manifest = _manifest(weights, description, name, flatbuffer, verified, probe)
        file = ModelFile(Path(f"{description.name}.tflite"), manifest, vocabulary, flatbuffer)
        data = file.to_bytes()
        parse_model_file(io.BytesIO(data), file.path)  # a device would refuse what this refuses
        built.append(Built(name, data, measurements))
    return built


def _build_flatbuffer(graph: Graph, weights: Weights, description: Description, profile: Profile, moments: Moments) -> bytes:
    """The bytes [0, Z) of a model file."""
    summary = (
        f"A character-level language model: {weights.cell.upper()} of {len(weights.layers)} x {weights.units} units "
        f"over {weights.vocabulary_size} tokens, one step at a time."
    )
    flatbuffer = build_flatbuffer(quantize(graph, profile, moments), description, summary)
    check_structure(flatbuffer, profile)
    return flatbuffer


def _steps(flatbuffer: bytes, weights: Weights, profile: Profile) -> list[Step]:
    """Load a flatbuffer on each installed interpreter that its profile names.

    Raises:
        CharedgeError: none is installed.
    """
    sizes, int4 = (weights.vocabulary_size, weights.state_size), profile.inner == "int4"
    installed = [interpreter for interpreter in installed_interpreters() if interpreter.name in profile.interpreters]
    if not installed:
        names = ", ".join(sorted(profile.interpreters))
        raise CharedgeError(f"none of {names} is installed, so nothing can be verified: run `pip install ai-edge-litert`.")
    return [Step(flatbuffer, *sizes, interpreter, int4=int4) for interpreter in installed]


def _manifest(
    weights: Weights, description: Description, quantization: str, flatbuffer: bytes, verified: list[Verified], probe: Probe
) -> Manifest:
    return Manifest(
        format_version=FORMAT_VERSION,
        name=description.name,
        created_by=f"charedge {version('charedge')}",
        created=description.created,
        license=description.license,
        cell=weights.cell,
        layers=len(weights.layers),
        units=weights.units,
        embedding_dim=weights.embedding.shape[1],
        state_size=weights.state_size,
        vocabulary_size=weights.vocabulary_size,
        normalization=description.normalization,
        unknown=description.unknown,
        start_text=description.start_text,
        quantization=quantization,
        input_table_folded=weights.folding_pays(),
        flatbuffer_sha256=hashlib.sha256(flatbuffer).hexdigest(),
        interpreters=[RequiredInterpreter(name, minimum) for name, minimum in PROFILES[quantization].interpreters.items()],
        verified=verified,
        probe=probe,
        training=description.training,
    )
