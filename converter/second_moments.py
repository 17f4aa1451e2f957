"""Second moments of the matrices' inputs while a model reads its training text, for 4-bit rounding."""

from __future__ import annotations

import numpy as np

from ..runtime.interpreter import quiet_stderr
from ..runtime.progress import Progress, Report, no_progress
from .graph import Graph, Tensor

STREAMS = 64  # read in parallel, each from a zero state
MIN_STREAM = 50  # characters
SUMMED_STEPS = 16  # before their products are summed: one large product is far cheaper than many small ones


def second_moments(graph: Graph, ids: np.ndarray, progress: Progress = no_progress) -> dict[Tensor, np.ndarray]:
    """Compute the mean of x x^T for the inputs x of every FULLY_CONNECTED.

    Args:
        graph: a float32 step graph.
        ids: int32 [n], ids of the training text.
        progress: called with reports on the characters read.

    Returns:
        float64 [inputs, inputs] for each matrix of weights.
    """
    from ai_edge_litert.interpreter import Interpreter

    streams = max(1, min(STREAMS, len(ids) // MIN_STREAM))
    tokens = ids[: len(ids) // streams * streams].reshape(streams, -1).astype(np.int32)
    operators = [operator for operator in graph.operators if operator.code == "FULLY_CONNECTED"]
    sources = {o.inputs[1]: o.inputs[0] for o in operators if o.inputs[0] is not None and o.inputs[1] is not None}
    observed = {f"observed_{i}": source for i, source in enumerate(dict.fromkeys(sources.values()))}
    names = {source: name for name, source in observed.items()}
    with quiet_stderr():
        content = Graph(graph.inputs, {**graph.outputs, **observed}, graph.operators).to_flatbuffer("observe", "", {})
        step = Interpreter(model_content=content).get_signature_runner("observe")
        sums = {name: np.zeros((source.shape[1], source.shape[1])) for name, source in observed.items()}
        state = np.zeros((streams, graph.inputs["state"].shape[1]), np.float32)
        for start in range(0, tokens.shape[1], SUMMED_STEPS):
            met: dict[str, list[np.ndarray]] = {name: [] for name in sums}
            for column in tokens.T[start : start + SUMMED_STEPS]:
                found = step(token=column, state=state)
                state = found["state"]
                for name, inputs in met.items():
                    inputs.append(found[name])
            for name, inputs in met.items():
                x = np.concatenate(inputs)  # [steps x streams, inputs]
                sums[name] += x.T @ x
            done = streams * min(start + SUMMED_STEPS, tokens.shape[1])
            progress(Report("calibrating int4", done, tokens.size, "characters"))
    return {weights: sums[names[source]] / tokens.size for weights, source in sources.items()}
