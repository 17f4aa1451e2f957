"""The step in C, and a program that runs it: the files beside a model that needs no interpreter."""

from __future__ import annotations

import os
from pathlib import Path

from ..runtime.errors import InvalidOption

FOLDER = Path(__file__).parent / "c"
STEP = ("charedge_step.h", "charedge_step.c")
EXAMPLE = "main.c"


def step_files(field: str, output: Path) -> dict[str, bytes]:
    """The files to write beside a header, by their names.

    The step is the same for every model. The example is left out where there is one, which is the user's by now.

    Args:
        field: the argument that named the header.
        output: the header.

    Raises:
        InvalidOption: the header or its source would have the name of one of the files.
    """
    if f"{output.stem}.c" in (*STEP, EXAMPLE) or output.stem == "charedge":
        raise InvalidOption(
            field, f"{output} cannot be used, its name is that of another exported file or type: choose another name."
        )
    files = {name: (FOLDER / name).read_bytes() for name in STEP}
    if not os.path.lexists(output.with_name(EXAMPLE)):
        files[EXAMPLE] = _example(output.stem)
    return files


def _example(name: str) -> bytes:
    text = (FOLDER / EXAMPLE).read_text(encoding="utf-8")
    return text.replace("@name@", name).replace("@NAME@", name.upper()).encode()
