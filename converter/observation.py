"""A float32 step graph that reads a text and shows what its tensors hold: what rounding and scales are measured on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from ..runtime.interpreter import quiet_stderr
from .graph import Graph, Tensor

STREAMS = 64  # read side by side, each from a zero state
MIN_STREAM = 50  # characters


def as_streams(ids: np.ndarray) -> np.ndarray:
    """A text cut into equal streams: int32 [n] -> int32 [streams, n // streams]."""
    streams = max(1, min(STREAMS, len(ids) // MIN_STREAM))
    return ids[: len(ids) // streams * streams].reshape(streams, -1).astype(np.int32)


def observe(graph: Graph, tensors: Iterable[Tensor], tokens: np.ndarray) -> Iterator[dict[Tensor, np.ndarray]]:
    """Read a text, and yield what some tensors hold after each character.

    Args:
        graph: a float32 step graph.
        tensors: of the graph.
        tokens: int32 [streams, length], the state carried from character to character.

    Yields:
        for each tensor float32 [streams, its columns], `length` times.
    """
    from ai_edge_litert.interpreter import Interpreter

    names = {f"observed_{i}": tensor for i, tensor in enumerate(dict.fromkeys(tensors))}
    with quiet_stderr():
        content = Graph(graph.inputs, {**graph.outputs, **names}, graph.operators).to_flatbuffer("observe", "", {})
        step = Interpreter(model_content=content).get_signature_runner("observe")
        state = np.zeros((len(tokens), graph.inputs["state"].shape[1]), np.float32)
        for column in tokens.T:
            found = step(token=column, state=state)
            state = found["state"]
            yield {tensor: found[name] for name, tensor in names.items()}
