"""The small steps of a corruption: draw an offset, a choice or some bytes, and write them over others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

Random = np.random.Generator


def place(data: bytes, random: Random, margin: int = 0) -> int:
    """An offset in the data, at least `margin` bytes before its end."""
    return int(random.integers(0, max(1, len(data) - margin)))


def pick(random: Random, choices: Sequence[Any]) -> Any:
    """One of the choices, all equally likely."""
    return choices[int(random.integers(len(choices)))]


def noise(random: Random, low: int, high: int) -> bytes:
    """Between `low` and `high` bytes: random, all zero bits or all one bits."""
    size = int(random.integers(low, high + 1))
    return pick(random, [random.bytes(size), b"\0" * size, b"\xff" * size])


def patch(data: bytes, offset: int, content: bytes) -> bytes:
    """The data with other content from an offset on, of the same length."""
    return data[:offset] + content + data[offset + len(content) :]
