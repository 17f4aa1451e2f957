"""Temperature scaling: the temperature that a run's logits are divided by so that they predict held-out text best.

A network that has memorised its text is too confident on any other (Guo et al. 2017, "On Calibration of Modern Neural
Networks", section 4.2). One number corrects most of that; it is then part of the last layer's weights.

The loss is measured at a few temperatures while the held-out text is read once. It is a smooth function of the temperature's
logarithm, so a polynomial through these values, at Chebyshev points, gives it at every other temperature.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import keras
import numpy as np
from numpy.polynomial import Chebyshev
from numpy.polynomial.chebyshev import chebpts1

from ..runtime.manifest import LogitTemperature, TemperatureFit
from ..runtime.progress import Progress, Report, no_progress
from ..trainer.logits import read_text
from ..trainer.model import LOGITS
from ..trainer.run import Run
from .arguments import MAX_TEMPERATURE
from .read_run import held_out_ids
from .verification import DECIMALS

MOST_LOGITS = 1_000_000_000
"""Maximum number of logits of a fit, which bounds its time: 1,000,000 characters for a vocabulary of 1,000, 50,000 for 20,000."""
MEASURED = np.log(MAX_TEMPERATURE) * chebpts1(17)
"""Logarithms of the temperatures at which the loss is measured. Between them the polynomial's error is about 1e-5 nats."""
CANDIDATES = np.log(MAX_TEMPERATURE) * np.linspace(-1, 1, 2001)
LIMIT = ", the limit of what is tried (a longer training helps)"
BLOCK = 1 << 16
"""Number of logits whose loss is computed at once: they fit in the processor's cache."""


@dataclass(frozen=True)
class Fit:
    """A fitted temperature, and its effect on the mean loss in nats per character."""

    temperature: float
    """1.0 if no temperature lowers the loss of text that it was not fitted on."""
    before: float
    """Loss with the logits as they are."""
    after: float
    """Loss with the logits divided by the best temperature of the whole text: measured where it was fitted, so no result."""
    unseen: float
    """Loss with the logits of each half of the text divided by the best temperature of the other half."""


def best_temperature(parts: Iterable[np.ndarray], targets: np.ndarray) -> Fit:
    """Find the temperature T that minimises the mean loss of softmax(logits / T) over a text.

    It must generalise: fitted on either half of the text, it must lower the loss of the other half.

    Args:
        parts: the logits, in parts of float32 [any, V], n rows in all, in the order of the text.
        targets: int [n].

    Returns:
        The temperature and the losses.
    """
    half = len(targets) // 2
    counts, sums, start = np.array([half, len(targets) - half]), np.zeros((2, len(MEASURED))), 0
    for logits in parts:
        rows = max(1, BLOCK // logits.shape[1])
        for first in range(0, len(logits), rows):
            block = logits[first : first + rows]
            nats = nats_by_temperature(block, targets[start : start + len(block)])
            in_first = max(0, half - start)
            sums += nats[:in_first].sum(axis=0), nats[in_first:].sum(axis=0)
            start += len(block)
    losses = [_curve(loss) for loss in sums / np.maximum(counts, 1)[:, None]]
    best = [CANDIDATES[np.argmin(loss(CANDIDATES))] for loss in losses]
    whole = _curve(sums.sum(axis=0) / len(targets))
    chosen = CANDIDATES[np.argmin(whole(CANDIDATES))]
    crossed = np.array([losses[0](best[1]), losses[1](best[0])])
    helps = all(crossed < [loss(0) for loss in losses])  # false if they are NaN
    return Fit(
        temperature=float(np.clip(np.exp(chosen), 1 / MAX_TEMPERATURE, MAX_TEMPERATURE)) if helps else 1.0,
        before=float(whole(0)),
        after=float(whole(chosen)),
        unseen=float(crossed @ counts / len(targets)),
    )


def nats_by_temperature(logits: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Compute the loss of each prediction at each of the measured temperatures.

    Args:
        logits: float32 [n, V].
        targets: int [n].

    Returns:
        float64 [n, temperatures], in nats.
    """
    logits = logits - logits.max(axis=1, keepdims=True)  # the largest exponent is 0
    wanted = logits[np.arange(len(targets)), targets].astype(np.float64)
    scales = np.exp(-MEASURED)
    return np.stack([np.log(np.exp(logits * np.float32(s)).sum(axis=1)) - s * wanted for s in scales], axis=1)


def _curve(losses: np.ndarray) -> Chebyshev:
    """The polynomial in the temperature's logarithm through the measured losses."""
    return Chebyshev.fit(MEASURED, losses, len(MEASURED) - 1, domain=[-np.log(MAX_TEMPERATURE), np.log(MAX_TEMPERATURE)])


def divide_logits(model: keras.Model, temperature: float) -> None:
    """Divide the logits of a model by a temperature, in the weights of its last layer."""
    layer = model.get_layer(LOGITS)
    layer.set_weights([weight / temperature for weight in layer.get_weights()])


def fit_temperature(model: keras.Model, run: Run, progress: Progress = no_progress) -> LogitTemperature:
    """Fit the temperature on a run's held-out text, and divide the logits of its model by it.

    Args:
        model: the Keras model of the run.
        run: the run.
        progress: called with reports on the characters read, and with a message about the result.

    Returns:
        The temperature, 1 if none helps, and then the model is unchanged; and the loss on text that it was not fitted on.

    Raises:
        CharedgeError: the run has no held-out text.
    """
    stage = "fitting the temperature"
    ids = held_out_ids(run, 1 + MOST_LOGITS // model.get_layer(LOGITS).units)
    parts = read_text(model, ids, progress, stage)
    fit = best_temperature(parts, ids[1:])
    text = f"the first {len(ids):,} held-out characters"
    at_limit = not 1.01 / MAX_TEMPERATURE < fit.temperature < MAX_TEMPERATURE / 1.01
    if fit.temperature == 1:
        message = f"not dividing the logits: fitted on one half of {text}, no temperature helps on the other half"
    else:
        divide_logits(model, fit.temperature)
        divisor = f"{fit.temperature:.3f}{LIMIT if at_limit else ''}"
        message = (
            f"dividing the logits by {divisor}, fitted on {text}; each half of them with the temperature fitted on the other half: "
            f"{fit.before:.4f} -> {fit.unseen:.4f} nats per character, one stream with the state carried"
        )
    progress(Report(stage, message=message))
    crossed = fit.before if fit.temperature == 1 else fit.unseen
    return LogitTemperature(fit.temperature, TemperatureFit(len(ids), round(crossed, DECIMALS), round(fit.before, DECIMALS)))


def apply_temperature(
    model: keras.Model, run: Run, fit: bool, given: float | None, progress: Progress = no_progress
) -> LogitTemperature | None:
    """Divide the logits of a run's model by a fitted or given temperature, or leave them as they are.

    Args:
        model: the Keras model of the run.
        run: the run.
        fit: whether to fit the temperature on the run's held-out text.
        given: the temperature to use without fitting; only without `fit`.
        progress: called with reports on the fit.

    Returns:
        The temperature; None if it is neither fitted nor given.

    Raises:
        CharedgeError: the run has no held-out text to fit on.
    """
    if fit:
        return fit_temperature(model, run, progress)
    if given is None:
        return None
    divide_logits(model, given)
    return LogitTemperature(float(given))
