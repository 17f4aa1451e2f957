"""The one temperature that a run's logits are divided by so that they predict text that was not trained on best.

A network that has learnt its text by heart is too confident on any other (Guo et al. 2017, "On Calibration of Modern Neural
Networks", section 4.2). One number corrects most of that, and lies in the weights of the last layer afterwards.

The loss is measured at a few temperatures while the held-out text is read once; as it is a smooth function of the temperature's
logarithm, the polynomial through them, at Chebyshev's points, gives it at any other.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import keras
import numpy as np
from numpy.polynomial import Chebyshev
from numpy.polynomial.chebyshev import chebpts1

from ..runtime.progress import Progress, Report, no_progress
from ..trainer.logits import read_text
from ..trainer.model import LOGITS
from ..trainer.run import Run
from .read_run import held_out_ids

MOST_LOGITS = 1_000_000_000
"""Logits that are computed for a fit, which bounds its time: 1,000,000 characters of a vocabulary of 1,000, 50,000 of 20,000."""
LARGEST = 4.0
"""The largest temperature; the smallest is 1 / LARGEST."""
MEASURED = np.log(LARGEST) * chebpts1(17)
"""Logarithms of the temperatures at which the loss is measured. Between them the polynomial is right to some 1e-5 nats."""
CANDIDATES = np.log(LARGEST) * np.linspace(-1, 1, 2001)
BLOCK = 1 << 16
"""Logits whose loss is computed at once: they stay in the processor's cache."""


@dataclass(frozen=True)
class Fit:
    """A temperature, and what it does to the mean loss, in nats per character."""

    temperature: float
    """1.0 if none helps on text that it was not fitted on."""
    before: float
    after: float
    """With the logits divided by the temperature that suits the whole text best."""
    unseen: float
    """With the logits of each half of the text divided by the temperature that suits the other half best."""


def best_temperature(parts: Iterable[np.ndarray], targets: np.ndarray) -> Fit:
    """The temperature T at which softmax(logits / T) gives the targets of a text the least mean loss.

    It must help in both directions: fitted on either half of the text, it must lower the loss of the other half.

    Args:
        parts: float32 [any, V] each, n rows in all, in the order of the text.
        targets: int [n].
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
    helps = all(crossed < [loss(0) for loss in losses])  # not if they are NaN
    return Fit(
        temperature=float(np.exp(chosen)) if helps else 1.0,
        before=float(whole(0)),
        after=float(whole(chosen)),
        unseen=float(crossed @ counts / len(targets)),
    )


def nats_by_temperature(logits: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """The loss of each prediction at each of the measured temperatures.

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
    """The polynomial in the temperature's logarithm that goes through the measured losses."""
    return Chebyshev.fit(MEASURED, losses, len(MEASURED) - 1, domain=[-np.log(LARGEST), np.log(LARGEST)])


def divide_logits(model: keras.Model, temperature: float) -> None:
    """Divide the last layer's weights, and so its logits."""
    layer = model.get_layer(LOGITS)
    layer.set_weights([weight / temperature for weight in layer.get_weights()])


def fit_temperature(model: keras.Model, run: Run, progress: Progress = no_progress) -> float:
    """Fit the temperature on a run's held-out text, and divide the logits of its model by it.

    Args:
        model: the run's, with its best weights.
        run: the run.
        progress: called with reports on the characters read, and with a message that says what was found.

    Returns:
        The temperature; 1.0 if none helps, and then the model stays as it is.

    Raises:
        CharedgeError: the run has no held-out text.
    """
    stage = "fitting the temperature"
    ids = held_out_ids(run, 1 + MOST_LOGITS // model.get_layer(LOGITS).units)
    parts = read_text(model, ids, progress, stage)
    fit = best_temperature(parts, ids[1:])
    over = f"over the first {len(ids):,} held-out characters, one stream with the state carried"
    if fit.temperature == 1:
        message = f"not dividing the logits: fitted on half of the held-out text, no temperature helps on the other half, {over}"
    else:
        divide_logits(model, fit.temperature)
        message = (
            f"dividing the logits by {fit.temperature:.3f}: {fit.before:.4f} -> {fit.after:.4f} nats per character {over} "
            f"({fit.unseen:.4f} on each half when fitted on the other)"
        )
    progress(Report(stage, message=message))
    return fit.temperature
