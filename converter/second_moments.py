"""Second moments of the matrices' inputs while a model reads its training text, for 4-bit rounding."""

from __future__ import annotations

import numpy as np

from ..runtime.progress import Progress, Report, no_progress
from .graph import Graph, Tensor
from .observation import as_streams, observe

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
    tokens = as_streams(ids)
    streams, length = tokens.shape
    operators = [operator for operator in graph.operators if operator.code == "FULLY_CONNECTED"]
    sources = {o.inputs[1]: o.inputs[0] for o in operators if o.inputs[0] is not None and o.inputs[1] is not None}
    sums = {source: np.zeros((source.shape[1], source.shape[1])) for source in sources.values()}
    seen: list[dict[Tensor, np.ndarray]] = []
    for i, values in enumerate(observe(graph, sums, tokens), 1):
        seen.append(values)
        if len(seen) == SUMMED_STEPS or i == length:
            for source, total in sums.items():
                x = np.concatenate([values[source] for values in seen])  # [steps x streams, inputs]
                total += x.T @ x
            seen.clear()
            progress(Report("calibrating int4", i * streams, tokens.size, "characters"))
    return {weights: sums[source] / tokens.size for weights, source in sources.items()}
