"""Rounding of weights: int8 to the nearest level; int4 by GPTQ with scales from OCTAV: later weights compensate for errors."""

from __future__ import annotations

import numpy as np

INT8_LEVELS = 127  # symmetric: -128 is not used, as TFLite's specification of int8 weights requires
INT4_LEVELS = 7  # symmetric: -8 is not used
OCTAV_ITERATIONS = 30
DAMPING = 0.01  # of the mean second moment, as in GPTQ
BLOCK = 128  # columns between two updates of all later ones: the same result, with most of the work in matrix products


def int8_scale(values: np.ndarray, axis: int) -> np.ndarray:
    """The value of one 8-bit level, so that the largest value along an axis is the last level: float32, above 0."""
    return np.maximum(np.abs(values).max(axis=axis) / INT8_LEVELS, np.finfo(np.float32).tiny).astype(np.float32)


def int8_round(values: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """The nearest levels as int8, from -127 to 127."""
    return np.clip(np.rint(values / scale), -INT8_LEVELS, INT8_LEVELS).astype(np.int8)


def octav_scale(weights: np.ndarray) -> np.ndarray:
    """The value of one 4-bit level for each row that minimises the squared error of clipping and rounding.

    Args:
        weights: float [outputs, inputs].

    Returns:
        float32 [outputs], above 0.

    Source: the Newton iteration of Sakr et al. 2022, Optimal Clipping and Magnitude-aware Differentiation (OCTAV), equation 6.
    """
    size = np.abs(weights).astype(np.float64)
    largest = size.max(axis=1, keepdims=True)
    rounding = 4.0**-4 / 3  # the mean squared error of rounding to 4 bits, in units of the squared clipping point
    clip = size.mean(axis=1, keepdims=True)
    for _ in range(OCTAV_ITERATIONS):
        clipped = size > clip
        counts = rounding * (~clipped).sum(axis=1, keepdims=True) + clipped.sum(axis=1, keepdims=True)
        clip = np.minimum((size * clipped).sum(axis=1, keepdims=True) / np.maximum(counts, np.finfo(np.float64).tiny), largest)
    return np.maximum(clip[:, 0] / INT4_LEVELS, np.finfo(np.float32).tiny).astype(np.float32)


def gptq(weights: np.ndarray, scale: np.ndarray, moment: np.ndarray) -> np.ndarray:
    """Round weights one input after another; later inputs compensate for the error of each.

    Args:
        weights: float [outputs, inputs].
        scale: float32 [outputs], the value of one level.
        moment: float64 [inputs, inputs], the mean of x x^T over the inputs x of the matrix.

    Returns:
        int8 [outputs, inputs], from -7 to 7.

    Source: Frantar et al. 2022, GPTQ, algorithm 1, with the inputs in descending order of their second moment.
    """
    order = np.argsort(-np.diag(moment), kind="stable")
    hessian = moment[np.ix_(order, order)].astype(np.float64)
    inputs = np.arange(len(order))
    mean = np.diag(hessian).mean()
    hessian[inputs, inputs] += DAMPING * mean if mean > 0 else 1.0
    upper = np.linalg.cholesky(np.linalg.inv(hessian)).T.astype(np.float32)
    left = weights[:, order].astype(np.float32)
    rounded = np.empty(left.shape, np.int8)
    for start in range(0, len(order), BLOCK):
        end = min(start + BLOCK, len(order))
        errors = np.empty((len(left), end - start), np.float32)
        for i in range(start, end):
            levels = np.clip(np.rint(left[:, i] / scale), -INT4_LEVELS, INT4_LEVELS)
            errors[:, i - start] = (left[:, i] - levels * scale) / upper[i, i]
            left[:, i:end] -= np.outer(errors[:, i - start], upper[i, i:end])
            rounded[:, order[i]] = levels
        left[:, end:] -= errors @ upper[start:end, end:]
    return rounded
