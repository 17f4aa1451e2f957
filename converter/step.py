"""One step of a recurrent language model as a float32 graph: a token and the state before it -> logits and the state after it.

The graph is built from the weights, with the cell's arithmetic written out, so that it contains only what a step needs.
`state` is the concatenation of every layer's state in layer order (GRU: h; LSTM: h then c); a text starts from zeros.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from .graph import BATCH, Graph, Operator, Tensor, constant

Cell = Literal["gru", "lstm"]
GATES: dict[str, tuple[str, ...]] = {"gru": ("update", "reset", "candidate"), "lstm": ("input", "forget", "candidate", "output")}
STATES: dict[str, tuple[str, ...]] = {"gru": ("h",), "lstm": ("h", "c")}


@dataclass(frozen=True)
class Layer:
    """One recurrent layer in Keras' layout, its gates side by side in the order of `GATES`."""

    kernel: np.ndarray  # [inputs, gates x units]
    recurrent_kernel: np.ndarray  # [units, gates x units]
    input_bias: np.ndarray  # [gates x units]
    recurrent_bias: np.ndarray | None  # [gates x units] for a GRU with reset_after, none for an LSTM


@dataclass(frozen=True)
class Weights:
    """The weights of a trained model, as float32 arrays."""

    cell: Cell
    embedding: np.ndarray  # [vocabulary, embedding_dim]
    layers: tuple[Layer, ...]
    output_kernel: np.ndarray  # [units, vocabulary]
    output_bias: np.ndarray  # [vocabulary]

    @classmethod
    def random(
        cls, cell: Cell = "gru", layers: int = 1, units: int = 24, vocabulary_size: int = 60, embedding_dim: int = 16, seed: int = 0
    ) -> Weights:
        """Random weights, for tests and benchmarks; large enough that the logits differ."""
        random = np.random.default_rng(seed)
        columns = len(GATES[cell]) * units

        def draw(*shape: int) -> np.ndarray:
            return random.normal(0, shape[0] ** -0.5, shape).astype(np.float32)

        stack = tuple(
            Layer(
                kernel=draw(embedding_dim if i == 0 else units, columns),
                recurrent_kernel=draw(units, columns),
                input_bias=draw(columns),
                recurrent_bias=draw(columns) if cell == "gru" else None,
            )
            for i in range(layers)
        )
        embedding, output = 2 * draw(vocabulary_size, embedding_dim), 4 * draw(units, vocabulary_size)
        return cls(cell, embedding, stack, output, draw(vocabulary_size))

    @property
    def units(self) -> int:
        return self.output_kernel.shape[0]

    @property
    def vocabulary_size(self) -> int:
        return self.embedding.shape[0]

    @property
    def state_size(self) -> int:
        return len(self.layers) * len(STATES[self.cell]) * self.units

    def folding_pays(self) -> bool:
        """Whether the table [vocabulary, gates x units] is no larger than the embedding and the kernel that it replaces."""
        table = self.vocabulary_size * self.layers[0].kernel.shape[1]
        return table <= self.embedding.size + self.layers[0].kernel.size


def build_step(weights: Weights, fold: bool | None = None) -> Graph:
    """Build the step graph.

    Args:
        weights: the weights.
        fold: whether the embedding, the first kernel and its bias become one table of gate inputs, with a row for each token; by
            default if that makes the file smaller.

    Returns:
        A graph with inputs `token` int32 [B] and `state` float32 [B, S], outputs `logits` [B, V] and `state` [B, S].
    """
    graph = Graph()
    token = graph.add_input("token", (BATCH,), np.int32)
    state = graph.add_input("state", (BATCH, weights.state_size), np.float32)
    gates, names = GATES[weights.cell], STATES[weights.cell]

    slots = [f"layer_{i}/{name}" for i in range(len(weights.layers)) for name in names]
    before = _split(graph, state, slots)  # S = layers x states x units -> each [B, units]
    after: list[Tensor] = []
    hidden: Tensor | None = None
    for i, layer in enumerate(weights.layers):
        scope = f"layer_{i}"
        input_names, recurrent_names = ([f"{scope}/{gate}/{side}" for gate in gates] for side in ("input", "recurrent"))
        if hidden is None and (weights.folding_pays() if fold is None else fold):
            table = weights.embedding @ layer.kernel + layer.input_bias  # [V, gates x units]
            inputs = _split(graph, _lookup(graph, f"{scope}/table", table, token), input_names)
        else:
            source = _lookup(graph, "embedding", weights.embedding, token) if hidden is None else hidden
            inputs = _gates(graph, input_names, source, layer.kernel, layer.input_bias)
        states = before[i * len(names) : (i + 1) * len(names)]
        states[0].largest = 1.0  # h, of a GRU and of an LSTM
        recurrent = _gates(graph, recurrent_names, states[0], layer.recurrent_kernel, layer.recurrent_bias)
        states = CELLS[weights.cell](graph, scope, inputs, recurrent, states)
        after += states
        hidden = states[0]
        hidden.largest = 1.0
    assert hidden is not None, "a model has at least one recurrent layer"

    graph.outputs["logits"] = _dense(graph, "logits", hidden, weights.output_kernel, weights.output_bias)
    graph.outputs["state"] = _concatenate(graph, "next_state", after)
    return graph


def _gru(graph: Graph, scope: str, x: list[Tensor], u: list[Tensor], states: list[Tensor]) -> list[Tensor]:
    """Cho et al. 2014 with the reset gate after the matmul, as cuDNN has it: h' = c + z (h - c), c = tanh(x_c + r u_c)."""
    (h,) = states
    z = _unary(graph, "LOGISTIC", f"{scope}/update", _add(graph, f"{scope}/update/sum", x[0], u[0]))
    r = _unary(graph, "LOGISTIC", f"{scope}/reset", _add(graph, f"{scope}/reset/sum", x[1], u[1]))
    reset = _multiply(graph, f"{scope}/candidate/reset", r, u[2])
    c = _unary(graph, "TANH", f"{scope}/candidate", _add(graph, f"{scope}/candidate/sum", x[2], reset))
    kept = _multiply(graph, f"{scope}/kept", z, _subtract(graph, f"{scope}/difference", h, c))
    return [_add(graph, f"{scope}/h/next", c, kept)]


def _lstm(graph: Graph, scope: str, x: list[Tensor], u: list[Tensor], states: list[Tensor]) -> list[Tensor]:
    """Hochreiter and Schmidhuber 1997 with the forget gate of Gers et al. 2000: c' = f c + i g, h' = o tanh(c')."""
    _, c = states
    sums = [_add(graph, f"{scope}/{gate}/sum", a, b) for gate, a, b in zip(GATES["lstm"], x, u, strict=True)]
    i, f, o = (_unary(graph, "LOGISTIC", f"{scope}/{GATES['lstm'][k]}", sums[k]) for k in (0, 1, 3))
    g = _unary(graph, "TANH", f"{scope}/candidate", sums[2])
    kept = _multiply(graph, f"{scope}/kept", f, c)
    c = _add(graph, f"{scope}/c/next", kept, _multiply(graph, f"{scope}/added", i, g))
    return [_multiply(graph, f"{scope}/h/next", o, _unary(graph, "TANH", f"{scope}/c/tanh", c)), c]


CELLS = {"gru": _gru, "lstm": _lstm}


def _lookup(graph: Graph, name: str, table: np.ndarray, token: Tensor) -> Tensor:
    """A row of `table` for each token: [B] -> [B, columns]."""
    rows = constant(f"{name}/rows", table.astype(np.float32))
    return graph.add("GATHER", name, rows, token, shape=(BATCH, table.shape[1]), options=schema.GatherOptionsT())


def _dense(graph: Graph, name: str, x: Tensor, kernel: np.ndarray, bias: np.ndarray | None) -> Tensor:
    """x @ kernel + bias: [B, inputs] -> [B, outputs]. TFLite stores the weights as [outputs, inputs]."""
    weights = constant(f"{name}/weights", kernel.T.astype(np.float32))
    offset = None if bias is None else constant(f"{name}/bias", bias.astype(np.float32))
    options = schema.FullyConnectedOptionsT()
    return graph.add("FULLY_CONNECTED", name, x, weights, offset, shape=(BATCH, kernel.shape[1]), options=options)


def _gates(graph: Graph, names: list[str], x: Tensor, kernel: np.ndarray, bias: np.ndarray | None) -> list[Tensor]:
    """One matmul for all gates, split into the gates: [B, inputs] -> gates of [B, units]."""
    return _split(graph, _dense(graph, f"{names[0]}/all", x, kernel, bias), names)


def _split(graph: Graph, x: Tensor, names: list[str]) -> list[Tensor]:
    """Equal parts of the last dimension: [B, parts x n] -> parts of [B, n]."""
    if len(names) == 1:
        return [x]
    shape = (BATCH, x.shape[1] // len(names))
    parts = [Tensor(name, shape, x.dtype) for name in names]
    options = schema.SplitOptionsT()
    options.numSplits = len(names)
    axis = constant(f"{names[0]}/axis", np.array(1, np.int32))
    graph.operators.append(Operator("SPLIT", [axis, x], parts, options))
    return parts


def _concatenate(graph: Graph, name: str, parts: list[Tensor]) -> Tensor:
    if len(parts) == 1:
        return parts[0]
    options = schema.ConcatenationOptionsT()
    options.axis = 1
    return graph.add("CONCATENATION", name, *parts, shape=(BATCH, sum(p.shape[1] for p in parts)), options=options)


def _unary(graph: Graph, code: str, name: str, x: Tensor) -> Tensor:
    return graph.add(code, name, x, shape=x.shape)


def _add(graph: Graph, name: str, a: Tensor, b: Tensor) -> Tensor:
    return graph.add("ADD", name, a, b, shape=a.shape, options=schema.AddOptionsT())


def _subtract(graph: Graph, name: str, a: Tensor, b: Tensor) -> Tensor:
    return graph.add("SUB", name, a, b, shape=a.shape, options=schema.SubOptionsT())


def _multiply(graph: Graph, name: str, a: Tensor, b: Tensor) -> Tensor:
    return graph.add("MUL", name, a, b, shape=a.shape, options=schema.MulOptionsT())
