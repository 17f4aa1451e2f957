"""Checks of the arguments that the functions of this room share."""

from __future__ import annotations

import math
from numbers import Real

from ..runtime.errors import InvalidOption
from ..runtime.progress import Progress
from .profiles import PROFILES

MAX_TEMPERATURE = 4.0
"""The largest temperature that the logits are divided by; the smallest is 1 / MAX_TEMPERATURE."""
MAX_TEXT = 1000  # characters of a name: the manifest is limited in size


def check_quantization(field: str, quantization: str) -> None:
    if not isinstance(quantization, str) or quantization not in PROFILES:
        raise InvalidOption(field, f"{quantization} is unknown: choose {', '.join(PROFILES)}.")


def check_options(
    tolerance: float | None,
    fit_temperature: bool,
    logit_temperature: float | None,
    name: str | None,
    author: str,
    license: str,
    notes: str,
    progress: Progress,
) -> None:
    """
    Raises:
        InvalidOption: an argument has an invalid value.
    """
    fine = tolerance is None or (_is_number(tolerance) and tolerance >= 0)
    require(fine, "tolerance", tolerance, "a number from 0 up, in nats per character")
    for field, text in (("name", "" if name is None else name), ("author", author), ("license", license), ("notes", notes)):
        if not isinstance(text, str) or len(text) > MAX_TEXT or not text.isprintable():
            raise InvalidOption(field, f"must be one line of at most {MAX_TEXT} printable characters.")
    check_call(fit_temperature, logit_temperature, progress)


def check_call(fit_temperature: bool, logit_temperature: float | None, progress: Progress) -> None:
    """
    Raises:
        InvalidOption: an argument has an invalid value, or the two temperatures exclude each other.
    """
    require(isinstance(fit_temperature, bool), "fit_temperature", fit_temperature, "True or False")
    fine = logit_temperature is None or (
        _is_number(logit_temperature) and 1 / MAX_TEMPERATURE <= logit_temperature <= MAX_TEMPERATURE
    )
    require(fine, "logit_temperature", logit_temperature, f"a number from {1 / MAX_TEMPERATURE:g} to {MAX_TEMPERATURE:g}")
    if fit_temperature and logit_temperature is not None:
        raise InvalidOption("logit_temperature", f"{logit_temperature:g} and `fit_temperature` exclude each other: choose one.")
    require(callable(progress), "progress", progress, "a function of one Report")


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def require(fine: bool, field: str, value: object, expected: str) -> None:
    if not fine:
        raise InvalidOption(field, f"{value!r} must be {expected}.")
