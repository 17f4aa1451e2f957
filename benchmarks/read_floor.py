"""This machine's read floor: the time to read the bytes that a step reads, without computing with them."""

from __future__ import annotations

from step_loop import Loop


def reading(size: int) -> Loop:
    """A loop that reads a number of bytes once per character; they are in the cache if they fit there.

    It looks for a byte that is not there, which every C library does as fast as the processor loads.
    """
    data = b"\1" * size

    def loop(characters: int) -> None:
        for _ in range(characters):
            data.find(0)

    return loop
