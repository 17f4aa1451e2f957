"""Whether a file does what the Keras model does, on every interpreter installed here."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from ..runtime.errors import CharedgeError
from ..runtime.interpreter import Step, installed_interpreters
from ..runtime.package import PROBE_LENGTH, Package, Probe, Verified
from ..runtime.scoring import score_ids

DECIMALS = 6  # of what goes into the manifest, so that a last bit of arithmetic does not change the file


@dataclass(frozen=True)
class Measurement:
    """A file's quality and speed on one interpreter."""

    quality: Verified
    microseconds_per_character: float


def measure(package: Package, ids: np.ndarray, reference: float) -> list[Measurement]:
    """Score held-out ids on each interpreter that the file names and that is installed.

    Args:
        package: the file, as yet without its figures.
        ids: int32 [n].
        reference: the Keras model's nats per character over the same ids.

    Raises:
        CharedgeError: none of the file's interpreters is installed.
    """
    named = {entry.name for entry in package.manifest.interpreters}
    measurements = []
    for installed in installed_interpreters():
        if installed.name not in named:
            continue
        step = Step(package, interpreter=installed.name)
        start = time.perf_counter()
        nats = score_ids(step, ids)
        microseconds = (time.perf_counter() - start) / (len(ids) - 1) * 1e6
        quality = Verified(installed.name, installed.version, len(ids), round(nats, DECIMALS), round(reference, DECIMALS))
        measurements.append(Measurement(quality, microseconds))
    if not measurements:
        raise CharedgeError(
            f"none of {', '.join(sorted(named))} is installed, so nothing can be verified: run `pip install ai-edge-litert`."
        )
    return measurements


def record_probe(package: Package, ids: np.ndarray, tolerance: float, interpreter: str) -> Probe:
    """A probe on the first held-out ids, with the loss that it has here."""
    probe_ids = np.resize(ids, PROBE_LENGTH)
    nats = score_ids(Step(package, interpreter=interpreter), probe_ids)
    return Probe([int(i) for i in probe_ids], round(nats, DECIMALS), tolerance)
