"""Checks of the arguments that the functions of this room share."""

from __future__ import annotations

import math
from numbers import Real

from ..runtime.errors import InvalidOption
from ..runtime.progress import Progress
from .profiles import PROFILES

MAX_TEXT = 1000  # characters of a name: the manifest is limited in size


def check_quantization(field: str, quantization: str) -> None:
    if not isinstance(quantization, str) or quantization not in PROFILES:
        raise InvalidOption(field, f"{quantization} is unknown: choose {', '.join(PROFILES)}.")


def check_options(
    tolerance: float | None,
    fit_temperature: bool,
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
    number = isinstance(tolerance, Real) and not isinstance(tolerance, bool) and math.isfinite(tolerance) and tolerance >= 0
    require(tolerance is None or number, "tolerance", tolerance, "a number from 0 up, in nats per character")
    for field, text in (("name", "" if name is None else name), ("author", author), ("license", license), ("notes", notes)):
        if not isinstance(text, str) or len(text) > MAX_TEXT or not text.isprintable():
            raise InvalidOption(field, f"must be one line of at most {MAX_TEXT} printable characters.")
    check_call(fit_temperature, progress)


def check_call(fit_temperature: bool, progress: Progress) -> None:
    require(isinstance(fit_temperature, bool), "fit_temperature", fit_temperature, "True or False")
    require(callable(progress), "progress", progress, "a function of one Report")


def require(fine: bool, field: str, value: object, expected: str) -> None:
    if not fine:
        raise InvalidOption(field, f"{value!r} must be {expected}.")
