"""The scales of 8-bit activations, measured on the run's calibration text.

A scale that covers the largest value spends most of its levels on values that rarely occur. The scale chosen here is the one with
the smallest squared error of rounding and clipping together.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from ..runtime.progress import Progress, Report, no_progress
from .graph import Graph, Tensor
from .observation import as_streams, observe
from .rounding import INT8_LEVELS, int8_scale

CHARACTERS = 8192  # of the calibration text, the last ones
BINS = 4096  # of the histogram of a tensor's absolute values
TINY = float(np.finfo(np.float32).tiny)
CLIPPED = np.linspace(0.2, 1, 81)
"""Clipping points that are tried, as fractions of the largest value."""


def activation_scales(graph: Graph, ids: np.ndarray, progress: Progress = no_progress) -> dict[Tensor, float]:
    """Measure the value of one int8 level for each input and each output of a FULLY_CONNECTED.

    An output here is the product with the int8 weights, before it is multiplied by the scale of its row and the bias is added.

    Args:
        graph: a float32 step graph.
        ids: int32 [n], n at least 2, ids of the text that the model was trained on.
        progress: called with reports on the characters read.

    Returns:
        A scale above 0 for each input and output.
    """
    tokens = as_streams(ids[-CHARACTERS:])
    operators = [operator for operator in graph.operators if operator.code == "FULLY_CONNECTED"]
    inputs = [source for operator in operators if (source := operator.inputs[0]) is not None]
    scales = {source: source.largest / INT8_LEVELS for source in inputs if source.largest is not None}
    wanted = [source for source in inputs if source.largest is None] + [operator.outputs[0] for operator in operators]
    products = {operator.outputs[0]: _as_product(operator.inputs[1], operator.inputs[2]) for operator in operators}

    def magnitudes(stage: int) -> Iterator[dict[Tensor, np.ndarray]]:
        for i, values in enumerate(observe(graph, wanted, tokens), 1):
            progress(Report("calibrating int8-static", len(tokens) * (stage * tokens.shape[1] + i), 2 * tokens.size, "characters"))
            yield {tensor: _magnitude(value, products.get(tensor)) for tensor, value in values.items()}

    largest = _largest(magnitudes(0))
    histograms = _histograms(magnitudes(1), largest)
    return scales | {tensor: best_scale(histograms[tensor], largest[tensor]) for tensor in wanted}


def best_scale(histogram: np.ndarray, largest: float) -> float:
    """The value of one int8 level with the smallest squared error of rounding and clipping together.

    Args:
        histogram: int [bins], the counts of absolute values in equal bins from 0 to `largest`.
        largest: the largest absolute value.
    """
    values = (np.arange(len(histogram)) + 0.5) / len(histogram) * largest
    scales = largest * CLIPPED / INT8_LEVELS
    levels = np.minimum(np.rint(values / scales[:, None]), INT8_LEVELS)
    errors = ((levels * scales[:, None] - values) ** 2) @ histogram
    return float(scales[errors.argmin()])


def _as_product(weights: Tensor | None, bias: Tensor | None) -> tuple[np.ndarray, np.ndarray]:
    """An output's bias and row scales; (output - bias) / scale is the product with the int8 weights."""
    assert weights is not None
    assert weights.data is not None
    offset = np.zeros(len(weights.data), np.float32) if bias is None or bias.data is None else bias.data
    return offset, int8_scale(weights.data, axis=1)


def _magnitude(value: np.ndarray, product: tuple[np.ndarray, np.ndarray] | None) -> np.ndarray:
    return np.abs(value if product is None else (value - product[0]) / product[1])


def _largest(parts: Iterable[Mapping[Tensor, np.ndarray]]) -> dict[Tensor, float]:
    largest: dict[Tensor, float] = {}
    for part in parts:
        for tensor, values in part.items():
            largest[tensor] = max(largest.get(tensor, TINY), float(values.max()))
    return largest


def _histograms(parts: Iterable[Mapping[Tensor, np.ndarray]], largest: Mapping[Tensor, float]) -> dict[Tensor, np.ndarray]:
    histograms = {tensor: np.zeros(BINS, np.int64) for tensor in largest}
    for part in parts:
        for tensor, values in part.items():
            histograms[tensor] += np.histogram(values, BINS, (0, largest[tensor]))[0]
    return histograms
