"""Quantisation profiles, and the one pass that writes a float32 step graph's weights as a profile asks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from .graph import Graph, Operator, Tensor, constant

INT8_LEVELS = 127  # symmetric: -128 stays unused, as TFLite's specification of int8 weights asks


@dataclass(frozen=True)
class Profile:
    """How the weights are stored, and where a file stored so was seen to be right."""

    description: str
    weights: Literal["float32", "int8"]
    interpreters: dict[str, str]
    """The lowest version of each interpreter that the profile was tested on; a device with another one is refused."""
    tolerance: float
    """How many nats per character the file may lose against the Keras model before `convert` refuses to write it."""
    probe_tolerance: float
    """How far the probe's loss may differ between processors and interpreters: far less than a wrong kernel makes it."""


PROFILES: dict[str, Profile] = {
    "float32": Profile(
        "the trained weights as they are",
        weights="float32",
        interpreters={"ai-edge-litert": "2.3.0", "tflite-runtime": "2.14.0"},
        tolerance=0.001,
        probe_tolerance=0.001,
    ),
    "int8": Profile(
        "8-bit weights with float arithmetic around them (dynamic range); runs everywhere",
        weights="int8",
        interpreters={"ai-edge-litert": "2.3.0", "tflite-runtime": "2.14.0"},
        tolerance=0.01,
        probe_tolerance=0.02,
    ),
}


def quantize(graph: Graph, profile: Profile) -> Graph:
    """A graph with the same inputs, outputs and operators whose weights are stored as `profile` says."""
    if profile.weights == "float32":
        return graph
    operators: list[Operator] = []
    for operator in graph.operators:
        operators += INT8_REWRITES.get(operator.code, lambda o: [o])(operator)
    return Graph(graph.inputs, graph.outputs, operators)


def _int8_matmul(operator: Operator) -> list[Operator]:
    """FULLY_CONNECTED on int8 weights with ONE scale.

    A scale for each row would be a little better, but that is version 12 of the operator, which tflite-runtime 2.14 lacks;
    `step.py` gives each gate a matmul, and so a scale, of its own instead. Version 9 is the first that may quantise the
    activations asymmetrically, which is what XNNPACK's fast kernels do.
    """
    x, weights, bias = operator.inputs
    assert weights is not None
    assert weights.data is not None
    scale = np.array([max(np.abs(weights.data).max() / INT8_LEVELS, np.finfo(np.float32).tiny)], np.float32)
    options = schema.FullyConnectedOptionsT()
    options.asymmetricQuantizeInputs = True
    stored = constant(weights.name, _round(weights.data, scale), scale)
    return [Operator("FULLY_CONNECTED", [x, stored, bias], operator.outputs, options, version=9)]


def _int8_lookup(operator: Operator) -> list[Operator]:
    """GATHER from an int8 table, CAST, and MUL by a scale for each column: no tool quantises a lookup so finely."""
    table, token = operator.inputs
    (row,) = operator.outputs
    assert table is not None
    assert table.data is not None
    scale = np.maximum(np.abs(table.data).max(axis=0) / INT8_LEVELS, np.finfo(np.float32).tiny).astype(np.float32)
    stored = constant(table.name, _round(table.data, scale))
    gathered = Tensor(f"{row.name}/int8", row.shape, np.dtype(np.int8))
    cast = Tensor(f"{row.name}/unscaled", row.shape, np.dtype(np.float32))
    options = schema.CastOptionsT()
    options.inDataType, options.outDataType = schema.TensorType.INT8, schema.TensorType.FLOAT32
    return [
        Operator("GATHER", [stored, token], [gathered], operator.options, version=2),
        Operator("CAST", [gathered], [cast], options, version=2),
        Operator("MUL", [cast, constant(f"{table.name}/scale", scale)], [row], schema.MulOptionsT()),
    ]


INT8_REWRITES = {"FULLY_CONNECTED": _int8_matmul, "GATHER": _int8_lookup}


def _round(values: np.ndarray, scale: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values / scale), -INT8_LEVELS, INT8_LEVELS).astype(np.int8)
