"""Values of the benchmarks' options."""

from __future__ import annotations

import argparse


def positive(text: str) -> int:
    """A whole number from 1, as the `type` of an option.

    Raises:
        argparse.ArgumentTypeError: the text is no such number.
    """
    if not text.isascii() or not text.isdigit() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number from 1")
    return int(text)
