"""A table of corruptions, filled by a decorator."""

from __future__ import annotations

from collections.abc import Callable

from .steps import Random

Corruption = Callable[[bytes, Random], bytes]


class Corruptions(dict[str, Corruption]):
    """Corruptions by name, in the order of their definition, on which the damage of a seed depends."""

    def add(self, function: Corruption) -> Corruption:
        """Add a function under its name, with spaces for the underscores; used as a decorator."""
        self[function.__name__.replace("_", " ")] = function
        return function
