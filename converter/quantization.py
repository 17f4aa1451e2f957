"""Quantization of a step graph: one pass that stores its weights as a profile (profiles.py) says."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import ml_dtypes
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from .graph import Graph, Operator, Tensor, constant
from .profiles import Profile, Storage
from .rounding import gptq, octav_scale

INT8_LEVELS = 127  # symmetric: -128 is not used, as TFLite's specification of int8 weights requires
Moments = Mapping[Tensor, np.ndarray]


def quantize(graph: Graph, profile: Profile, moments: Moments | None = None) -> Graph:
    """Quantize the weights of a step graph.

    Args:
        graph: a float32 step graph.
        profile: how to store its weights.
        moments: from `second_moments`, for the rounding of 4-bit weights.

    Returns:
        A new graph with the same inputs and outputs.
    """
    looked_up = {operator.outputs[0] for operator in graph.operators if operator.code == "GATHER"}
    operators: list[Operator] = []
    for operator in graph.operators:
        outer = operator.code == "GATHER" or operator.inputs[0] in looked_up or operator.outputs[0] is graph.outputs["logits"]
        rewrite = REWRITES.get((operator.code, profile.outer if outer else profile.inner))
        operators += rewrite(operator, moments or {}) if rewrite else [operator]
    return Graph(graph.inputs, graph.outputs, operators)


def _float16(operator: Operator, moments: Moments) -> list[Operator]:
    """A DEQUANTIZE for each constant; interpreters run it once, when they load the file."""
    rewritten, operands = [], list(operator.inputs)
    for i, operand in enumerate(operands):
        if operand is not None and operand.data is not None:
            restored = operands[i] = Tensor(f"{operand.name}/float32", operand.shape, operand.dtype)
            stored = constant(operand.name, operand.data.astype(np.float16))
            rewritten.append(Operator("DEQUANTIZE", [stored], [restored], version=3))
    return [*rewritten, Operator(operator.code, operands, operator.outputs, operator.options)]


def _int4_matmul(operator: Operator, moments: Moments) -> list[Operator]:
    """FULLY_CONNECTED with a scale for each output: version 12, which tflite-runtime refuses."""
    x, weights, bias = operator.inputs
    assert weights is not None
    assert weights.data is not None
    scale = octav_scale(weights.data)
    moment = moments.get(weights, np.eye(weights.data.shape[1]))
    levels = gptq(weights.data, scale, moment).astype(ml_dtypes.int4)
    options = schema.FullyConnectedOptionsT()
    options.asymmetricQuantizeInputs = True
    return [Operator("FULLY_CONNECTED", [x, constant(weights.name, levels, scale), bias], operator.outputs, options, version=12)]


def _int8_matmul(operator: Operator, moments: Moments) -> list[Operator]:
    """FULLY_CONNECTED on int8 weights, MUL by a scale for each output, ADD of the bias.

    FULLY_CONNECTED itself has a scale for each output from version 12 on, which tflite-runtime 2.14 lacks. With a separate MUL
    the arithmetic is the same on every interpreter, and the operator's single scale is 1. Version 9 is the first that can
    quantize the activations asymmetrically, as XNNPACK's fast kernels do.
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


def _int8_lookup(operator: Operator, moments: Moments) -> list[Operator]:
    """GATHER from an int8 table, CAST, and MUL by a scale for each column, which is finer than a scale for the table."""
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


REWRITES: dict[tuple[str, Storage], Callable[[Operator, Moments], list[Operator]]] = {
    ("GATHER", "float16"): _float16,
    ("GATHER", "int8"): _int8_lookup,
    ("FULLY_CONNECTED", "float16"): _float16,
    ("FULLY_CONNECTED", "int8"): _int8_matmul,
    ("FULLY_CONNECTED", "int4"): _int4_matmul,
}


def _scale(values: np.ndarray, axis: int) -> np.ndarray:
    """The value of one level, so that the largest value along an axis is the last level; never zero."""
    return np.maximum(np.abs(values).max(axis=axis) / INT8_LEVELS, np.finfo(np.float32).tiny).astype(np.float32)


def _round(values: np.ndarray, scale: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values / scale), -INT8_LEVELS, INT8_LEVELS).astype(np.int8)
