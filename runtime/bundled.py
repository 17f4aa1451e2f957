"""The bundled models, by name."""

from __future__ import annotations

import os
from pathlib import Path

from .errors import CharedgeError

FOLDER = Path(__file__).parent / "models"
NAMES = ("shakespeare", "shakespeare-tiny")
"""The first one is the default of `charedge generate`."""
DEFAULT = FOLDER / f"{NAMES[0]}.tflite"


def find_model(model: str | Path) -> Path:
    """Find the file of a path or of a bundled model's name; a regular file with that name takes precedence.

    Raises:
        CharedgeError: it is a plain name, and neither a file nor a bundled model has that name.
    """
    path, name = Path(model), str(model)
    if name in NAMES and not path.is_file():
        return FOLDER / f"{name}.tflite"
    if name and not path.suffix and os.sep not in name and "\0" not in name and not os.path.lexists(path):
        from difflib import get_close_matches

        names = dict.fromkeys([*get_close_matches(name, NAMES, cutoff=0.4), *NAMES])  # the nearest first
        raise CharedgeError(
            f"{name!r} is neither a file nor a bundled model ({', '.join(names)}): give one of these. `charedge generate` "
            "takes the text to continue with `prompt`."
        )
    return path
