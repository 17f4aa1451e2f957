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
        "8-bit weights, a scale for each output, float arithmetic around them (dynamic range); runs everywhere",
        weights="int8",
        interpreters={"ai-edge-litert": "2.3.0", "tflite-runtime": "2.14.0"},
        tolerance=0.01,
        probe_tolerance=0.02,
    ),
}


def quantize(graph: Graph, profile: Profile) -> Graph:
    """A graph with the same inputs and outputs whose weights are stored as `profile` says."""
    if profile.weights == "float32":
        return graph
    operators: list[Operator] = []
    for operator in graph.operators:
        operators += INT8_REWRITES.get(operator.code, lambda o: [o])(operator)
    return Graph(graph.inputs, graph.outputs, operators)


def _int8_matmul(operator: Operator) -> list[Operator]:
    """FULLY_CONNECTED on int8 weights, MUL by a scale for each output, ADD of the bias.

    A scale for each output inside FULLY_CONNECTED is version 12 of it, which tflite-runtime 2.14 lacks. Multiplied afterwards
    it is the same arithmetic on every interpreter: here the operator's one scale is 1. Version 9 is the first that may
    quantise the activations asymmetrically, which is what XNNPACK's fast kernels do.
    """
    x, weights, bias = operator.inputs
    (output,) = operator.outputs
    assert weights is not None
    assert weights.data is not None
    scale = _scale(weights.data, axis=1)
    options = schema.FullyConnectedOptionsT()
    options.asymmetricQuantizeInputs = True
    stored = constant(weights.name, _round(weights.data, scale[:, None]), scale=np.ones(1, np.float32))
    unscaled = Tensor(f"{output.name}/unscaled", output.shape, output.dtype)
    scaled = output if bias is None else Tensor(f"{output.name}/scaled", output.shape, output.dtype)
    rewritten = [
        Operator("FULLY_CONNECTED", [x, stored, None], [unscaled], options, version=9),
        Operator("MUL", [unscaled, constant(f"{weights.name}/scale", scale)], [scaled], schema.MulOptionsT()),
    ]
    if bias is not None:
        rewritten.append(Operator("ADD", [scaled, bias], [output], schema.AddOptionsT()))
    return rewritten


def _int8_lookup(operator: Operator) -> list[Operator]:
    """GATHER from an int8 table, CAST, and MUL by a scale for each column: no tool quantises a lookup so finely."""
    table, token = operator.inputs
    (row,) = operator.outputs
    assert table is not None
    assert table.data is not None
    scale = _scale(table.data, axis=0)
    gathered = Tensor(f"{row.name}/int8", row.shape, np.dtype(np.int8))
    cast = Tensor(f"{row.name}/unscaled", row.shape, row.dtype)
    options = schema.CastOptionsT()
    options.inDataType, options.outDataType = schema.TensorType.INT8, schema.TensorType.FLOAT32
    return [
        Operator("GATHER", [constant(table.name, _round(table.data, scale)), token], [gathered], operator.options, version=2),
        Operator("CAST", [gathered], [cast], options, version=2),
        Operator("MUL", [cast, constant(f"{table.name}/scale", scale)], [row], schema.MulOptionsT()),
    ]


INT8_REWRITES = {"FULLY_CONNECTED": _int8_matmul, "GATHER": _int8_lookup}


def _scale(values: np.ndarray, axis: int) -> np.ndarray:
    """The size of one level, so that the largest value along an axis is the last level; never zero."""
    return np.maximum(np.abs(values).max(axis=axis) / INT8_LEVELS, np.finfo(np.float32).tiny).astype(np.float32)


def _round(values: np.ndarray, scale: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values / scale), -INT8_LEVELS, INT8_LEVELS).astype(np.int8)
