"""A minimal TFLite graph: tensors, operators and one signature, written as a flatbuffer.

`step.py` builds such a graph in float32, `quantization.py` rewrites its weights, and `to_flatbuffer` turns the result into
bytes. The file is written here, rather than by TensorFlow's converter, because that fixes the operator versions (which decide
which interpreters accept the file), the names, and every byte.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import flatbuffers
import ml_dtypes
import numpy as np
from ai_edge_litert import schema_py_generated as schema

SCHEMA_VERSION = 3
FILE_IDENTIFIER = b"TFL3"
BUFFER_ALIGNMENT = 16  # required of Buffer.data by schema.fbs (`force_align: 16`) and by the kernels' vector loads
BATCH = -1
"""A dimension that the device can resize. The file declares it as 1, without a `shape_signature`: interpreters resize it all the
same, and LiteRT.js, which cannot, takes the file as it is."""

TENSOR_TYPES = {
    np.dtype(np.float32): schema.TensorType.FLOAT32,
    np.dtype(np.float16): schema.TensorType.FLOAT16,
    np.dtype(np.int32): schema.TensorType.INT32,
    np.dtype(np.int8): schema.TensorType.INT8,
    np.dtype(ml_dtypes.int4): schema.TensorType.INT4,
}


@dataclass(eq=False)
class Tensor:
    """A value in the graph; a constant if it has `data`.

    `scale` is the value of one level of a quantised tensor: one value for all of it, or one for each row of a constant.
    `largest` is the largest absolute value that a float tensor can hold, if its kind sets a bound.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    data: np.ndarray | None = None
    scale: np.ndarray | None = None
    largest: float | None = None


def constant(name: str, data: np.ndarray, scale: np.ndarray | None = None) -> Tensor:
    """A tensor with fixed data."""
    return Tensor(name, data.shape, data.dtype, np.ascontiguousarray(data), scale)


@dataclass(eq=False)
class Operator:
    """One TFLite builtin. `code` is a name of BuiltinOperator; `inputs` may hold None where an operand is optional."""

    code: str
    inputs: list[Tensor | None]
    outputs: list[Tensor]
    options: Any = None
    version: int = 1


@dataclass
class Graph:
    """A graph under construction: `inputs` and `outputs` by signature name, `operators` in the order of execution."""

    inputs: dict[str, Tensor] = field(default_factory=dict)
    outputs: dict[str, Tensor] = field(default_factory=dict)
    operators: list[Operator] = field(default_factory=list)

    def add_input(self, name: str, shape: tuple[int, ...], dtype: type[np.generic]) -> Tensor:
        """Add an input of the signature, and return it."""
        self.inputs[name] = Tensor(name, shape, np.dtype(dtype))
        return self.inputs[name]

    def add(self, code: str, name: str, *operands: Tensor | None, shape: tuple[int, ...], options: Any = None) -> Tensor:
        """Append an operator with one float32 output called `name`, and return that output."""
        output = Tensor(name, shape, np.dtype(np.float32))
        self.operators.append(Operator(code, list(operands), [output], options))
        return output

    def tensors(self) -> list[Tensor]:
        """Every tensor once: the inputs, the outputs, then the rest in the order of their use."""
        operands = (t for o in self.operators for t in (*o.inputs, *o.outputs) if t is not None)
        return list(dict.fromkeys([*self.inputs.values(), *self.outputs.values(), *operands]))

    def to_flatbuffer(self, signature_key: str, description: str, metadata: Mapping[str, bytes]) -> bytes:
        """The graph as the bytes of a TFLite model, with one signature and the named metadata buffers."""
        model = schema.ModelT()
        model.version = SCHEMA_VERSION
        model.description = description
        model.buffers = [schema.BufferT()]  # by convention buffer 0 is empty, for all tensors that are not constants
        tensors = self.tensors()
        index = {tensor: i for i, tensor in enumerate(tensors)}
        codes = sorted({(getattr(schema.BuiltinOperator, o.code), o.version) for o in self.operators})

        subgraph = schema.SubGraphT()
        subgraph.name = signature_key
        subgraph.tensors = [_tensor(tensor, model.buffers) for tensor in tensors]
        subgraph.inputs = [index[tensor] for tensor in self.inputs.values()]
        subgraph.outputs = [index[tensor] for tensor in self.outputs.values()]
        subgraph.operators = [
            _operator(o, codes.index((getattr(schema.BuiltinOperator, o.code), o.version)), index) for o in self.operators
        ]
        model.subgraphs = [subgraph]
        model.operatorCodes = [_operator_code(builtin, version) for builtin, version in codes]

        signature = schema.SignatureDefT()
        signature.signatureKey = signature_key
        signature.subgraphIndex = 0
        signature.inputs = [_tensor_map(name, index[tensor]) for name, tensor in self.inputs.items()]
        signature.outputs = [_tensor_map(name, index[tensor]) for name, tensor in self.outputs.items()]
        model.signatureDefs = [signature]

        model.metadata = [_metadata(name, data, model.buffers) for name, data in metadata.items()]
        builder = flatbuffers.Builder(sum(tensor.data.nbytes for tensor in tensors if tensor.data is not None) + 65536)
        builder.Finish(model.Pack(builder), file_identifier=FILE_IDENTIFIER)
        return bytes(builder.Output())


class _AlignedBuffer(schema.BufferT):
    """A buffer whose bytes start at a multiple of 16: the generated `Pack` ignores the alignment in the schema."""

    def __init__(self, content: bytes) -> None:
        super().__init__()
        self.content = content

    def Pack(self, builder: flatbuffers.Builder) -> int:
        builder.Prep(BUFFER_ALIGNMENT, len(self.content))
        data = builder.CreateByteVector(self.content)
        schema.BufferStart(builder)
        schema.BufferAddData(builder, data)
        return schema.BufferEnd(builder)


def _append_buffer(data: bytes, buffers: list[schema.BufferT]) -> int:
    buffers.append(_AlignedBuffer(data))
    return len(buffers) - 1


def _tensor(tensor: Tensor, buffers: list[schema.BufferT]) -> schema.TensorT:
    t = schema.TensorT()
    t.name = tensor.name
    t.type = TENSOR_TYPES[tensor.dtype]
    t.hasRank = True
    t.shape = [1 if size == BATCH else size for size in tensor.shape]
    t.buffer = 0 if tensor.data is None else _append_buffer(_content(tensor.data), buffers)
    if tensor.scale is not None:
        t.quantization = schema.QuantizationParametersT()
        t.quantization.scale = [float(s) for s in np.atleast_1d(tensor.scale)]
        t.quantization.zeroPoint = [0] * len(t.quantization.scale)
    return t


def _content(data: np.ndarray) -> bytes:
    """The bytes of a constant; two 4-bit numbers share a byte, the first in its lower half."""
    if data.dtype != ml_dtypes.int4:
        return data.tobytes()
    nibbles = np.append(data.astype(np.int8).reshape(-1) & 0xF, np.zeros(data.size % 2, np.int8)).astype(np.uint8)
    return (nibbles[0::2] | nibbles[1::2] << 4).tobytes()


def _operator(operator: Operator, code_index: int, index: Mapping[Tensor, int]) -> schema.OperatorT:
    o = schema.OperatorT()
    o.opcodeIndex = code_index
    o.inputs = [-1 if tensor is None else index[tensor] for tensor in operator.inputs]
    o.outputs = [index[tensor] for tensor in operator.outputs]
    if operator.options is not None:
        o.builtinOptionsType = getattr(schema.BuiltinOptions, type(operator.options).__name__.removesuffix("T"))
        o.builtinOptions = operator.options
    return o


def _operator_code(builtin: int, version: int) -> schema.OperatorCodeT:
    code = schema.OperatorCodeT()
    code.builtinCode = builtin
    code.deprecatedBuiltinCode = min(builtin, schema.BuiltinOperator.PLACEHOLDER_FOR_GREATER_OP_CODES)
    code.version = version
    return code


def _tensor_map(name: str, index: int) -> schema.TensorMapT:
    entry = schema.TensorMapT()
    entry.name = name
    entry.tensorIndex = index
    return entry


def _metadata(name: str, data: bytes, buffers: list[schema.BufferT]) -> schema.MetadataT:
    entry = schema.MetadataT()
    entry.name = name
    entry.buffer = _append_buffer(data, buffers)
    return entry
