"""Standard input, output and error: always open, UTF-8 in pipes and files, and without control characters on a terminal."""

from __future__ import annotations

import io
import json
import os
import sys
from contextlib import suppress
from typing import Any, TextIO

from .runtime.text import harmless

STDOUT = "<stdout>"  # the file name in errors of stdout


def to_json(value: Any, indent: int | None = None) -> str:
    r"""A value as JSON for stdout; `HARMFUL` characters, and all but ASCII on a terminal that is not UTF-8, become `\uXXXX`."""
    ascii_only = (sys.stdout.encoding or "").lower().replace("-", "") != "utf8"
    return harmless(json.dumps(value, ensure_ascii=ascii_only, indent=indent))


class Stdout(io.TextIOWrapper):
    """A stdout that names itself in errors and, on a terminal, escapes what would control the terminal."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._is_terminal = self.isatty()

    def write(self, text: str, /) -> int:
        try:
            super().write(harmless(text) if self._is_terminal else text)
        except OSError as error:
            error.filename = STDOUT
            raise
        return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            error.filename = STDOUT
            raise


def prepare_streams() -> None:
    """Open the streams that the caller has closed, and make stdout safe for any text.

    A closed descriptor would be reused by the next file that is opened, and warnings would be written into that file. Therefore
    each gets the null device first: reading stdin and writing stdout then fail, and writes to stderr are lost.

    A pipe or a file gets UTF-8 in every locale. A terminal keeps its encoding, and what it cannot show is escaped.
    """
    for name, flags, mode in (("stdin", os.O_WRONLY, "r"), ("stdout", os.O_RDONLY, "w"), ("stderr", os.O_RDWR, "w")):
        if getattr(sys, name) is None:
            descriptor = os.open(os.devnull, flags)  # the lowest free descriptor, which is the closed one
            os.set_inheritable(descriptor, True)
            setattr(sys, name, os.fdopen(descriptor, mode, encoding="utf-8", errors="backslashreplace"))
    before = sys.stdout
    if isinstance(before, io.TextIOWrapper):
        encoding = before.encoding if before.isatty() else "utf-8"
        options = {"line_buffering": before.line_buffering, "write_through": before.write_through}
        sys.stdout = Stdout(before.detach(), encoding, "backslashreplace", newline="\n", **options)


def write_error(text: str) -> None:
    """Write to stderr without buffering, control characters escaped; if stderr cannot be written, the text is dropped."""
    try:
        print(harmless(text), file=sys.stderr, flush=True)
    except (OSError, ValueError):
        drop(sys.stderr)


def drop(stream: TextIO) -> None:
    """Redirect a stream to the null device, so that Python's last flush of it does not fail."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
