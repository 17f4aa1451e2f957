"""Quantization of a step graph: one pass that stores its weights as a profile (profiles.py) says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import ml_dtypes
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from .graph import Graph, Operator, Tensor, constant
from .profiles import Profile, Storage
from .rounding import gptq, int8_round, int8_scale, octav_scale


@dataclass(frozen=True)
class Statistics:
    """What was measured of a float32 step graph on the text that its model was trained on."""

    moments: Mapping[Tensor, np.ndarray] = field(default_factory=dict)
    """From `second_moments`: 4-bit weights are rounded by them; without them, each to its nearest level."""
    scales: Mapping[Tensor, float] = field(default_factory=dict)
    """From `activation_scales`: `int8-static` needs them."""


def quantize(graph: Graph, profile: Profile, statistics: Statistics | None = None) -> Graph:
    """Quantize the weights of a step graph.


    Args:
        graph: a float32 step graph.
        profile: how to store its weights.
        statistics: measured on the same graph; `int8-static` needs its scales.

    Returns:
        A new graph with the same inputs and outputs.
    """
    statistics = statistics or Statistics()
    looked_up = {operator.outputs[0] for operator in graph.operators if operator.code == "GATHER"}
    operators: list[Operator] = []
    for operator in graph.operators:
        outer = operator.code == "GATHER" or operator.inputs[0] in looked_up or operator.outputs[0] is graph.outputs["logits"]
        rewrite = REWRITES.get((operator.code, profile.outer if outer else profile.inner))
        operators += rewrite(operator, statistics) if rewrite else [operator]
    return Graph(graph.inputs, graph.outputs, operators)


def _float16(operator: Operator, statistics: Statistics) -> list[Operator]:
    """A DEQUANTIZE for each constant; interpreters run it once, when they load the file."""
    rewritten, operands = [], list(operator.inputs)
    for i, operand in enumerate(operands):
        if operand is not None and operand.data is not None:
            restored = operands[i] = Tensor(f"{operand.name}/float32", operand.shape, operand.dtype)
            stored = constant(operand.name, operand.data.astype(np.float16))
            rewritten.append(Operator("DEQUANTIZE", [stored], [restored], version=3))
    return [*rewritten, Operator(operator.code, operands, operator.outputs, operator.options)]


def _int4_matmul(operator: Operator, statistics: Statistics) -> list[Operator]:
    """FULLY_CONNECTED with a scale for each output: version 12, which tflite-runtime refuses."""
    x, weights, bias = operator.inputs
    assert weights is not None
    assert weights.data is not None
    scale = octav_scale(weights.data)
    moment = statistics.moments.get(weights, np.eye(weights.data.shape[1]))
    levels = gptq(weights.data, scale, moment).astype(ml_dtypes.int4)
    options = schema.FullyConnectedOptionsT()
    options.asymmetricQuantizeInputs = True
    return [Operator("FULLY_CONNECTED", [x, constant(weights.name, levels, scale), bias], operator.outputs, options, version=12)]


def _int8_matmul(operator: Operator, statistics: Statistics) -> list[Operator]:
    """FULLY_CONNECTED on int8 weights, MUL by a scale for each output, ADD of the bias.

    FULLY_CONNECTED itself has a scale for each output from version 12 on, which tflite-runtime 2.14 lacks. With a separate MUL
    the arithmetic is the same on every interpreter, and the operator's single scale is 1. Version 9 is the first that can
    quantize the activations asymmetrically, as XNNPACK's fast kernels do.
    """
    stored, scale = _int8_weights(operator)
    unscaled = _like(operator.outputs[0], "unscaled")
    options = schema.FullyConnectedOptionsT()
    options.asymmetricQuantizeInputs = True
    product = Operator("FULLY_CONNECTED", [operator.inputs[0], stored, None], [unscaled], options, version=9)
    return [product, *_scale_and_add(operator, unscaled, scale)]


def _static_matmul(operator: Operator, statistics: Statistics) -> list[Operator]:
    """QUANTIZE, FULLY_CONNECTED on integers alone, DEQUANTIZE; then MUL and ADD as in `_int8_matmul`.

    TensorFlow Lite Micro has no FULLY_CONNECTED on a float input and int8 weights.
    """
    x, (output,) = operator.inputs[0], operator.outputs
    assert x is not None
    stored, scale = _int8_weights(operator)
    unscaled = _like(output, "unscaled")
    quantized, product = _activation(x, statistics.scales[x]), _activation(output, statistics.scales[output])
    return [
        Operator("QUANTIZE", [x], [quantized]),
        Operator("FULLY_CONNECTED", [quantized, stored, None], [product], schema.FullyConnectedOptionsT(), version=4),
        Operator("DEQUANTIZE", [product], [unscaled], version=2),
        *_scale_and_add(operator, unscaled, scale),
    ]


def _int8_weights(operator: Operator) -> tuple[Tensor, np.ndarray]:
    """The int8 weights of a FULLY_CONNECTED, whose one scale is 1, and the scale of each of their rows."""
    weights = operator.inputs[1]
    assert weights is not None
    assert weights.data is not None
    scale = int8_scale(weights.data, axis=1)
    return constant(weights.name, int8_round(weights.data, scale[:, None]), scale=np.ones(1, np.float32)), scale


def _scale_and_add(operator: Operator, unscaled: Tensor, scale: np.ndarray) -> list[Operator]:
    """MUL of a product by a scale for each of its columns, and ADD of the bias if there is one."""
    _, weights, bias = operator.inputs
    (output,) = operator.outputs
    assert weights is not None
    scaled = output if bias is None else _like(output, "scaled")
    operators = [Operator("MUL", [unscaled, constant(f"{weights.name}/scale", scale)], [scaled], schema.MulOptionsT())]
    if bias is not None:
        operators.append(Operator("ADD", [scaled, bias], [output], schema.AddOptionsT()))
    return operators


def _activation(tensor: Tensor, scale: float) -> Tensor:
    """A float tensor as int8."""
    return Tensor(f"{tensor.name}/int8", tensor.shape, np.dtype(np.int8), scale=np.array([scale], np.float32))


def _like(tensor: Tensor, part: str) -> Tensor:
    return Tensor(f"{tensor.name}/{part}", tensor.shape, tensor.dtype)


def _int8_lookup(operator: Operator, statistics: Statistics) -> list[Operator]:
    """GATHER from an int8 table, CAST, and MUL by a scale for each column, which is finer than a scale for the table."""
    table, token = operator.inputs
    (row,) = operator.outputs
    assert table is not None
    assert table.data is not None
    scale = int8_scale(table.data, axis=0)
    gathered = Tensor(f"{row.name}/int8", row.shape, np.dtype(np.int8))
    cast = Tensor(f"{row.name}/unscaled", row.shape, row.dtype)
    options = schema.CastOptionsT()
    options.inDataType, options.outDataType = schema.TensorType.INT8, schema.TensorType.FLOAT32
    return [
        Operator("GATHER", [constant(table.name, int8_round(table.data, scale)), token], [gathered], operator.options, version=2),
        Operator("CAST", [gathered], [cast], options, version=2),
        Operator("MUL", [cast, constant(f"{table.name}/scale", scale)], [row], schema.MulOptionsT()),
    ]


REWRITES: dict[tuple[str, Storage], Callable[[Operator, Statistics], list[Operator]]] = {
    ("GATHER", "float16"): _float16,
    ("GATHER", "int8"): _int8_lookup,
    ("GATHER", "int8-static"): _int8_lookup,
    ("FULLY_CONNECTED", "float16"): _float16,
    ("FULLY_CONNECTED", "int8"): _int8_matmul,
    ("FULLY_CONNECTED", "int8-static"): _static_matmul,
    ("FULLY_CONNECTED", "int4"): _int4_matmul,
}
