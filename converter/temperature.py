"""The one temperature that a run's logits are divided by so that they predict its held-out text best.

A network that has learnt its text by heart is too sure of itself on any other (Guo et al. 2017, "On Calibration of Modern Neural
Networks", section 4.2). One number mends most of it, and lies in the weights of the last layer afterwards.
"""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from ..runtime.cli import say
from ..runtime.errors import CharedgeError
from ..runtime.scoring import log_softmax, nats_of
from ..trainer.logits import compile_reader, state_size_of, stream_chunks
from ..trainer.model import CPU, LOGITS
from ..trainer.run import Run

FITTED_CHARACTERS, STREAMS = 100_000, 16
MOST_LOGITS = 10_000_000
"""Fewer characters are read where a vocabulary is large."""
LARGEST = 4.0
"""No temperature is further from 1 than this times."""
ITERATIONS = 20


def fit_temperature(logits: np.ndarray, targets: np.ndarray) -> float:
    """The temperature T at which softmax(logits / T) gives the targets the least mean loss, by Newton's method in 1 / T.

    The loss is convex in 1 / T: its derivative is the mean of the expected logit less the target's, its second one that of the
    logits' variance.

    Args:
        logits: float [n, V].
        targets: int [n].
    """
    scale, wanted = 1.0, logits[np.arange(len(targets)), targets].mean(dtype=np.float64)
    for _ in range(ITERATIONS):
        probabilities = np.exp(log_softmax(logits * np.float32(scale)))
        mean = (probabilities * logits).sum(axis=1)
        variance = (probabilities * logits**2).sum(axis=1) - mean**2
        step = (mean.mean(dtype=np.float64) - wanted) / max(float(variance.mean(dtype=np.float64)), 1e-12)
        scale = float(np.clip(scale - step, max(1 / LARGEST, scale / 2), min(LARGEST, scale * 2)))
        if abs(step) < 1e-6:
            break
    return 1 / scale


def read_logits(model: keras.Model, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What a model makes of a text, in streams side by side, each from a zero state: logits float32 [n, V] and targets int [n]."""
    vocabulary_size = model.get_layer(LOGITS).units
    ids = ids[: min(FITTED_CHARACTERS, MOST_LOGITS // vocabulary_size)]
    streams = min(STREAMS, len(ids) - 1)
    read, state = compile_reader(model, CPU), tf.zeros((streams, state_size_of(model)))
    parts, targets = [], []
    for chunk in stream_chunks(ids, streams):
        logits, state = read(tf.constant(chunk[:, :-1]), state)
        parts.append(logits.numpy())
        targets.append(chunk[:, 1:])
    return np.concatenate(parts, axis=1).reshape(-1, vocabulary_size), np.concatenate(targets, axis=1).reshape(-1)


def divide_logits(model: keras.Model, temperature: float) -> None:
    """Divide the last layer's weights, and so all that it puts out."""
    layer = model.get_layer(LOGITS)
    layer.set_weights([weight / temperature for weight in layer.get_weights()])


def calibrate(model: keras.Model, run: Run) -> float:
    """Fit the temperature on a run's held-out text, and divide the logits of its model by it.

    Returns:
        The temperature.

    Raises:
        CharedgeError: the run has no held-out text.
    """
    held_out = run.vocabulary().encode(run.held_out())
    if len(held_out) < 2:
        raise CharedgeError(f"{run.path} has no held-out text to fit a temperature on: copy the run folder again.")
    logits, targets = read_logits(model, held_out)
    temperature = fit_temperature(logits, targets)
    divide_logits(model, temperature)
    before, after = (nats_of(logits / t, targets).mean() for t in (1.0, temperature))
    say(f"dividing the logits by {temperature:.3f}: {before:.4f} -> {after:.4f} nats over {len(targets):,} held-out characters")
    return temperature
