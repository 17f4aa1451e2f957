"""Arguments that are paths."""

from __future__ import annotations

import os
from pathlib import Path

from .errors import InvalidOption

StrPath = str | os.PathLike[str]


def path_argument(field: str, value: object) -> Path:
    """Check an argument that must be a path.

    Args:
        field: the name of the argument.
        value: what was given.

    Raises:
        InvalidOption: it is empty, has a zero byte, or is not a path.
    """
    path = os.fspath(value) if isinstance(value, (str, os.PathLike)) else None
    if path == "":
        raise InvalidOption(field, "is missing: give a path.")
    if not isinstance(path, str):
        raise InvalidOption(field, f"{value!r} must be a path.")
    if "\0" in path:
        raise InvalidOption(field, f"{path!r} has a zero byte, which a path cannot have: check the path.")
    return Path(path)
