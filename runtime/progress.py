"""How far long work is: the one callback through which every room reports it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Report:
    """What is being done, and how much of it."""

    stage: str
    """As in `encoding` or `epoch 3/10`."""
    done: int = 0
    total: int = 0
    """Of the units; 0 for a report that is a message alone."""
    unit: str = ""
    """What `done` and `total` count, in the plural."""
    message: str = ""
    """A line that stays on the screen."""
    figures: Mapping[str, Any] = field(default_factory=dict)
    """Of a training: its loss, speed and remaining time by the names of the JSON log (docs/training.md)."""


Progress = Callable[[Report], object]


def no_progress(report: Report) -> None:
    """Report to nobody."""
