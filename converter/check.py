"""Structure check of a flatbuffer, by LiteRT's own schema, before any interpreter runs it.

An interpreter may run a file with a wrong scale, version or alignment and silently compute wrong results.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from ..runtime.model_file import SIGNATURE
from .graph import BUFFER_ALIGNMENT
from .profiles import Profile

VERSIONS: dict[tuple[str, str], int] = {
    ("FULLY_CONNECTED", "FLOAT32"): 1,
    ("FULLY_CONNECTED", "INT8"): 9,
    ("FULLY_CONNECTED", "INT8 with INT8"): 4,
    ("FULLY_CONNECTED", "INT4"): 12,
    ("GATHER", "FLOAT32"): 1,
    ("GATHER", "INT8"): 2,
    ("CAST", "INT8"): 2,
    ("DEQUANTIZE", "FLOAT16"): 3,
    ("DEQUANTIZE", "INT8"): 2,
}
"""The version of each operator by the type of its weights, and of its input where that is quantised; all others have version 1."""
WEIGHTS = {"FULLY_CONNECTED": 1, "GATHER": 0, "CAST": 0, "DEQUANTIZE": 0}
"""The index of the operand that holds the weights."""
OPERATORS = {value: name for name, value in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
TYPES = {value: name for name, value in vars(schema.TensorType).items() if not name.startswith("_")}
LATEST_PORTABLE_MATMUL = 9  # FULLY_CONNECTED, in tflite-runtime 2.14


class StructureError(AssertionError):
    """A written flatbuffer has a defect."""


def check_structure(flatbuffer: bytes, profile: Profile) -> None:
    """Check that a flatbuffer is what its profile specifies.

    Args:
        flatbuffer: the bytes [0, Z) of a model file.
        profile: the profile by which it was quantized.

    Raises:
        StructureError: a buffer is not aligned or lies outside the file, an operator has a wrong version for its weights, weights
            lack a scale, a tensor has a `shape_signature`, the matmuls have a version that the named interpreters do not know, or
            the signature is not `step`.
    """
    model: Any = schema.Model.GetRootAs(flatbuffer, 0)
    _check_buffers(model, flatbuffer)
    graph: Any = schema.ModelT.InitFromObj(model)
    if [signature.signatureKey for signature in graph.signatureDefs] != [SIGNATURE.encode()]:
        raise StructureError(f"the signature is not `{SIGNATURE}`")
    tensors = graph.subgraphs[0].tensors
    if any(tensor.shapeSignature is not None for tensor in tensors):
        raise StructureError("a tensor has a shape_signature")
    matmuls = []
    for operator in graph.subgraphs[0].operators:
        code = graph.operatorCodes[operator.opcodeIndex]
        name = OPERATORS[code.builtinCode]
        source, weights = tensors[operator.inputs[0]], tensors[operator.inputs[WEIGHTS.get(name, 0)]]
        kind = TYPES[weights.type]
        if name == "FULLY_CONNECTED" and source.type == schema.TensorType.INT8:
            kind += " with INT8"
            _check_activations([source, *(tensors[i] for i in operator.outputs)])
        if code.version != VERSIONS.get((name, kind), 1):
            raise StructureError(f"{name} on {kind} has version {code.version}")
        if name == "FULLY_CONNECTED":
            matmuls.append(code.version)
            _check_scales(weights, [tensors[i] for i in operator.outputs])
    if ("tflite-runtime" in profile.interpreters) != (max(matmuls) <= LATEST_PORTABLE_MATMUL):
        raise StructureError("the matmuls have versions that the interpreters named in the file do not know")


def _check_buffers(model: Any, flatbuffer: bytes) -> None:
    start = np.frombuffer(flatbuffer, np.uint8).__array_interface__["data"][0]
    for i in range(model.BuffersLength()):
        buffer = model.Buffers(i)
        if buffer.Offset() or buffer.Size():
            raise StructureError(f"buffer {i} lies outside the flatbuffer")
        if buffer.DataLength() and (buffer.DataAsNumpy().__array_interface__["data"][0] - start) % BUFFER_ALIGNMENT:
            raise StructureError(f"buffer {i} is not aligned")


def _check_scales(weights: Any, outputs: list[Any]) -> None:
    """Check that int8 weights have one scale and int4 weights one for each output, all above 0."""
    if TYPES[weights.type] not in ("INT8", "INT4"):
        return
    scales = weights.quantization.scale if weights.quantization else None
    wanted = 1 if TYPES[weights.type] == "INT8" else outputs[0].shape[-1]
    if scales is None or len(scales) != wanted or not all(scale > 0 and np.isfinite(scale) for scale in scales):
        raise StructureError(f"{weights.name!r} does not have {wanted} positive scales")


def _check_activations(tensors: list[Any]) -> None:
    """Activations between integer operators are int8 with one positive scale, and 0 is 0."""
    for tensor in tensors:
        scales = tensor.quantization.scale if tensor.quantization else None
        fine = scales is not None and len(scales) == 1 and scales[0] > 0 and np.isfinite(scales[0])
        if TYPES[tensor.type] != "INT8" or not fine or list(tensor.quantization.zeroPoint) != [0]:
            raise StructureError(f"{tensor.name!r} is not int8 with one positive scale")
