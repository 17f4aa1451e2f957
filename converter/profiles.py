"""The table of quantizations: how each stores the weights, and on which interpreters it was tested."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Storage = Literal["float32", "float16", "int8", "int8-static", "int4"]

MICRO = "tflite-micro"
"""TensorFlow Lite for Microcontrollers, by the name of its package for the host. It has no releases: any version is 0 or later."""
PORTABLE = {"ai-edge-litert": "2.3.0", "tflite-runtime": "2.14.0"}


@dataclass(frozen=True)
class Profile:
    """A quantization: storage of the weights, and the interpreters on which such files were tested."""

    description: str
    inner: Storage
    """Storage of the matrices that multiply a recurrent state in the layers: nearly all of the model."""
    outer: Storage
    """Storage of the rest: the input table or embedding, the first layer's input matrix, the output layer."""
    interpreters: dict[str, str]
    """The minimum version of each interpreter on which the profile was tested; others are refused on the device."""
    tolerance: float
    """Maximum loss of the file against the Keras model, in nats per character, unless `convert` gets another one."""
    probe_tolerance: float
    """Maximum difference of the probe's loss between machines, in nats per character; a wrong kernel changes it by far more."""


PROFILES: dict[str, Profile] = {
    "float32": Profile(
        "the trained weights as they are",
        inner="float32",
        outer="float32",
        interpreters=PORTABLE,
        tolerance=0.001,
        probe_tolerance=0.001,
    ),
    "float16": Profile(
        "half-precision weights, made float32 when the file is loaded: half the bytes to send, the memory and speed of float32",
        inner="float16",
        outer="float16",
        interpreters=PORTABLE,
        tolerance=0.001,
        probe_tolerance=0.001,
    ),
    "int8": Profile(
        "8-bit weights, a scale for each output, float arithmetic around them (dynamic range); runs everywhere",
        inner="int8",
        outer="int8",
        interpreters=PORTABLE,
        tolerance=0.01,
        probe_tolerance=0.02,
    ),
    "int8-static": Profile(
        "8-bit weights and activations, scales measured on the training text: for microcontrollers, and runs everywhere else",
        inner="int8-static",
        outer="int8-static",
        interpreters={**PORTABLE, MICRO: "0"},
        tolerance=0.02,
        probe_tolerance=0.05,
    ),
    "int4": Profile(
        "4-bit recurrent weights, a scale for each output, the rest 8-bit: the smallest and fastest; LiteRT with XNNPACK only",
        inner="int4",
        outer="int8",
        interpreters={"ai-edge-litert": "2.3.0"},
        tolerance=0.02,
        probe_tolerance=0.02,
    ),
}
