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
from ..runtime.manifest import FORMAT_VERSION, LogitTemperature, Manifest, Microcontroller, Probe, RequiredInterpreter, Verified
from ..runtime.model_file import ModelFile, parse_model_file
from ..runtime.progress import Progress, Report, no_progress
from ..runtime.vocabulary import Vocabulary
from .activation_scales import activation_scales
from .check import check_structure
from .description import Description
from .graph import Graph
from .metadata import build_flatbuffer
from .microcontroller import NOT_INSTALLED, MicroStep, installed_micro, operators
from .profiles import MICRO, PROFILES, Profile
from .quantization import Statistics, quantize
from .second_moments import second_moments
from .step import Weights, build_step
from .verification import Measurement, measure, record_probe


@dataclass(frozen=True)
class Built:
    """The bytes of a model file, and its measurements."""

    quantization: str
    data: bytes
    interpreters: list[RequiredInterpreter]
    """The interpreters that may run it, with the lowest version of each."""
    measurements: list[Measurement]
    """One on each installed interpreter that the file names."""
    probe_difference: float
    """Largest difference of the probe's loss between these interpreters, in nats per character."""
    logit_temperature: LogitTemperature | None = None
    """The temperature that its logits were divided by, if they were."""

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
    gptq: bool = True,
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
        calibration: int32 [m], ids of the training text, by which 4-bit weights are rounded; `int8-static` needs them.
        gptq: whether 4-bit weights are rounded by GPTQ; otherwise each to its nearest level.
        progress: called with reports on the characters read in each stage.

    Returns:
        The files, in the order of `quantizations`.

    Raises:
        CharedgeError: no interpreter that a profile names is installed.
    """
    graph = build_step(weights)
    statistics = _statistics(graph, quantizations, calibration, gptq, progress)
    flatbuffers = [_build_flatbuffer(graph, weights, description, PROFILES[name], statistics) for name in quantizations]
    steps = [
        _steps(flatbuffer, weights, PROFILES[name], progress) for flatbuffer, name in zip(flatbuffers, quantizations, strict=True)
    ]
    measured = measure(steps, held_out, reference, progress)
    built = []
    for name, flatbuffer, file_steps, measurements in zip(quantizations, flatbuffers, steps, measured, strict=True):
        verified = [measurement.quality for measurement in measurements]
        probe, difference = record_probe(file_steps, held_out, PROFILES[name].probe_tolerance)
        manifest = _manifest(weights, description, name, flatbuffer, verified, probe, _microcontroller(file_steps, flatbuffer))
        file = ModelFile(Path(f"{description.name}.tflite"), manifest, vocabulary, flatbuffer)
        data = file.to_bytes()
        parse_model_file(io.BytesIO(data), file.path)  # a device would refuse what this refuses
        built.append(Built(name, data, manifest.interpreters, measurements, difference, manifest.logit_temperature))
    return built


def _statistics(
    graph: Graph, quantizations: Sequence[str], calibration: np.ndarray | None, gptq: bool, progress: Progress
) -> Statistics:
    """Measure what the quantizations need on the calibration text."""
    storages = {PROFILES[quantization].inner for quantization in quantizations}
    if calibration is None:
        return Statistics()
    return Statistics(
        second_moments(graph, calibration, progress) if gptq and "int4" in storages else {},
        activation_scales(graph, calibration, progress) if "int8-static" in storages else {},
    )


def _build_flatbuffer(graph: Graph, weights: Weights, description: Description, profile: Profile, statistics: Statistics) -> bytes:
    """The bytes [0, Z) of a model file."""
    summary = (
        f"A character-level language model: {weights.cell.upper()} of {len(weights.layers)} x {weights.units} units "
        f"over {weights.vocabulary_size} tokens, one step at a time."
    )
    flatbuffer = build_flatbuffer(quantize(graph, profile, statistics), description, summary)
    check_structure(flatbuffer, profile)
    return flatbuffer


def _steps(flatbuffer: bytes, weights: Weights, profile: Profile, progress: Progress) -> list[Step]:
    """Load a flatbuffer on each installed interpreter that its profile names, TensorFlow Lite Micro last.

    Raises:
        CharedgeError: none is installed but TensorFlow Lite Micro, or one does not take the file.
    """
    sizes, int4 = (weights.vocabulary_size, weights.state_size), profile.inner == "int4"
    installed = [interpreter for interpreter in installed_interpreters() if interpreter.name in profile.interpreters]
    if not installed:
        names = ", ".join(sorted(set(profile.interpreters) - {MICRO}))
        raise CharedgeError(f"none of {names} is installed, so nothing can be verified: run `pip install ai-edge-litert`.")
    steps = [Step(flatbuffer, *sizes, interpreter, int4=int4) for interpreter in installed]
    if MICRO in profile.interpreters:
        micro = installed_micro()
        if micro is None:
            progress(
                Report(
                    "converting",
                    message=f"the model is not verified on TensorFlow Lite Micro, and not marked for it: {NOT_INSTALLED}",
                )
            )
        else:
            steps.append(MicroStep(flatbuffer, *sizes, micro))
    return steps


def _microcontroller(steps: Sequence[Step], flatbuffer: bytes) -> Microcontroller | None:
    micro = steps[-1]
    return Microcontroller(micro.arena_bytes(), operators(flatbuffer)) if isinstance(micro, MicroStep) else None


def _manifest(
    weights: Weights,
    description: Description,
    quantization: str,
    flatbuffer: bytes,
    verified: list[Verified],
    probe: Probe,
    microcontroller: Microcontroller | None,
) -> Manifest:
    minimums = PROFILES[quantization].interpreters.items()
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
        interpreters=[RequiredInterpreter(name, minimum) for name, minimum in minimums if name != MICRO or microcontroller],
        verified=verified,
        probe=probe,
        training=description.training,
        microcontroller=microcontroller,
        logit_temperature=description.logit_temperature,
    )
