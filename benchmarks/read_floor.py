"""This machine's read floor: how long it takes to read the bytes that a step reads, and do next to nothing with them."""

from __future__ import annotations

from step_loop import Loop


def reading(size: int) -> Loop:
    """Reads so many bytes once for each character, from where they lie when they were read just before.

    It looks for a byte that is not there, which every C library does as fast as the processor loads.
    """
    data = b"\1" * size

    def loop(characters: int) -> None:
        for _ in range(characters):
            data.find(0)

    return loop
