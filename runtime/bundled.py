"""The models that come with the package, by name."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent / "models"
NAMES = ("shakespeare", "shakespeare-tiny")
"""The first one writes where no model is given."""
DEFAULT = FOLDER / f"{NAMES[0]}.tflite"


def find_model(model: str | Path) -> Path:
    """The file that a path or a name stands for: a regular file of that name goes before a model that comes with the package."""
    path, bundled = Path(model), FOLDER / f"{model}.tflite"
    return bundled if str(model) in NAMES and not path.is_file() else path
