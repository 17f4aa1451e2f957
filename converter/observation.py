"""Reads a text with a float32 step graph and yields the values of its tensors, to measure rounding and scales on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import nullcontext

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
    """Read a text, and yield the values of some tensors after each character.

    Args:
        graph: a float32 step graph.
        tensors: the tensors to observe.
        tokens: int32 [streams, length]; each stream starts from a state of zeros, which is carried to its end.

    Yields:
        float32 [streams, columns] for each tensor, `length` times.
    """
    from ai_edge_litert.interpreter import Interpreter

    names = {f"observed_{i}": tensor for i, tensor in enumerate(dict.fromkeys(tensors))}
    content = Graph(graph.inputs, {**graph.outputs, **names}, graph.operators).to_flatbuffer("observe", "", {})
    with quiet_stderr():
        step = Interpreter(model_content=content).get_signature_runner("observe")
    state = np.zeros((len(tokens), graph.inputs["state"].shape[1]), np.float32)
    for i, column in enumerate(tokens.T):
        with nullcontext() if i else quiet_stderr():  # LiteRT creates its delegate in the first step
            found = step(token=column, state=state)
        state = found["state"]
        yield {tensor: found[name] for name, tensor in names.items()}
