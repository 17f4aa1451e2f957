"""Weights of a model file as a Keras model has them: dequantised, and a folded table factorised into embedding and kernel.

The constants are found by the names that docs/file-format.md specifies. Nothing else of the graph is read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..runtime.errors import CharedgeError
from ..runtime.model_file import ModelFile
from ..runtime.vocabulary import UNKNOWN_ID

FIRST_GATE = {"gru": "update", "lstm": "input"}
"""The gate that names the matrix of all gates."""
TABLE = "layer_0/table/rows"
EMBEDDING = "embedding/rows"


@dataclass(frozen=True)
class ModelWeights:
    """Weights that were read from a model file."""

    arrays: list[np.ndarray]
    """In the order and the shapes of `build_model`, float32."""
    table_error: float = 0.0
    """What the factors of a folded table leave out of it, as a share of its norm; 0 for a file without such a table."""


def read_weights(file: ModelFile) -> ModelWeights:
    """Read the weights of a model file of any quantisation.

    Args:
        file: from `read_model_file`, which has checked its SHA-256.

    Raises:
        CharedgeError: the graph has other constants than this version knows.
    """
    manifest = file.manifest
    constants = _constants(file.flatbuffer)
    error = 0.0
    try:
        gate = FIRST_GATE[manifest.cell]
        weights: list[np.ndarray] = []
        for i in range(manifest.layers):
            scope = f"layer_{i}/{gate}"
            if i == 0 and TABLE in constants:
                table = _columns(constants, TABLE)
                trained = np.arange(len(table)) != UNKNOWN_ID if manifest.unknown == "skip" else np.full(len(table), True)
                embedding, kernel, bias, error = factorise(table, trained, manifest.embedding_dim)
                weights.append(embedding)
            else:
                if i == 0:
                    weights.append(_columns(constants, EMBEDDING))
                kernel, bias = _matrix(constants, f"{scope}/input/all"), constants.pop(f"{scope}/input/all/bias")
            recurrent = _matrix(constants, f"{scope}/recurrent/all")
            if manifest.cell == "gru":
                bias = np.stack([bias, constants.pop(f"{scope}/recurrent/all/bias")])  # [2, gates x units]
            weights += [kernel, recurrent, bias]
        weights += [_matrix(constants, "logits"), constants.pop("logits/bias")]
    except KeyError as missing:
        raise _unknown_graph(file, f"it has no constant {missing}") from None
    if constants:
        raise _unknown_graph(file, f"its constant {next(iter(constants))!r} is unknown")
    return ModelWeights([np.ascontiguousarray(array, np.float32) for array in weights], error)


def factorise(table: np.ndarray, trained: np.ndarray, dimensions: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Factorise a folded table: table = embedding @ kernel + bias, or the nearest such product (Eckart and Young 1936).

    The bias is the mean of the trained rows, so that a token with a small embedding begins as an average one. The two factors have
    equal norms. Dimensions beyond the table's rank have embeddings of 0 and random kernels, so that they can learn.

    Args:
        table: float [V, gates x units].
        trained: bool [V], the rows of tokens that occurred in the training.
        dimensions: E, columns of the embedding.

    Returns:
        The embedding [V, E], the kernel [E, gates x units] and the bias [gates x units]; and the norm of what they leave out as a
        share of the table's, 0 if that is rounding.
    """
    table = table.astype(np.float64)
    bias = table[trained].mean(axis=0)
    u, s, v = np.linalg.svd(table - bias, full_matrices=False)  # [V, r], [r], [r, gates x units]
    rank = min(dimensions, len(s))
    root = np.sqrt(s[:rank])
    embedding, kernel = np.zeros((len(table), dimensions)), np.zeros((dimensions, table.shape[1]))
    embedding[:, :rank], kernel[:rank] = u[:, :rank] * root, root[:, None] * v[:rank]
    limit = np.sqrt(6 / (dimensions + table.shape[1]))  # Glorot and Bengio 2010, as Keras initialises kernels
    kernel[rank:] = np.random.default_rng(0).uniform(-limit, limit, (dimensions - rank, table.shape[1]))
    left_out = float(np.linalg.norm(s[rank:]) / np.linalg.norm(table)) if table.any() else 0.0
    return embedding, kernel, bias, left_out if left_out > np.finfo(np.float32).eps else 0.0


def _unknown_graph(file: ModelFile, reason: str) -> CharedgeError:
    return CharedgeError(
        f"the weights of {file.path} cannot be read ({reason}): use the version of charedge that wrote it "
        f"({file.manifest.created_by}), or start from its run folder."
    )


def _columns(constants: dict[str, np.ndarray], name: str) -> np.ndarray:
    """Remove a table from the constants, its columns multiplied by their scales."""
    return constants.pop(name) * constants.pop(f"{name}/scale", 1.0)


def _matrix(constants: dict[str, np.ndarray], name: str) -> np.ndarray:
    """Remove a matrix [outputs, inputs] from the constants, its rows multiplied by their scales: [inputs, outputs]."""
    weights = constants.pop(f"{name}/weights")
    return weights.T * constants.pop(f"{name}/weights/scale", 1.0)


def _constants(flatbuffer: bytes) -> dict[str, np.ndarray]:
    """The constants of a graph that are weights, by name: float32, multiplied by the scales that their tensors have themselves."""
    from ai_edge_litert import schema_py_generated as schema

    kinds = {schema.TensorType.FLOAT32: "<f4", schema.TensorType.FLOAT16: "<f2", schema.TensorType.INT8: "i1"}
    model: Any = schema.ModelT.InitFromObj(schema.Model.GetRootAs(flatbuffer))
    constants = {}
    for tensor in model.subgraphs[0].tensors:
        data = model.buffers[tensor.buffer].data
        if data is None or tensor.type not in (*kinds, schema.TensorType.INT4):
            continue
        levels = _int4(data) if tensor.type == schema.TensorType.INT4 else data.view(kinds[tensor.type])
        values = levels[: np.prod(tensor.shape)].reshape(tensor.shape).astype(np.float32)
        scale = None if tensor.quantization is None else tensor.quantization.scale
        rows = (-1, *[1] * (values.ndim - 1))  # a scale for each row, or one for all
        constants[tensor.name.decode()] = values if scale is None else values * np.reshape(scale, rows).astype(np.float32)
    return constants


def _int4(data: np.ndarray) -> np.ndarray:
    """The numbers of bytes that hold two each, the first in the lower half: uint8 [n] -> int8 [2 n]."""
    halves = np.stack([data & 0xF, data >> 4], axis=1).reshape(-1).astype(np.int8)
    return np.where(halves > 7, halves - 16, halves)
