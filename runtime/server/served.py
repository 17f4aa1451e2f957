"""The models that a server has loaded, each with its engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ..errors import InvalidOption
from ..model import Model, load
from .engine import Engine
from .settings import Settings


@dataclass(frozen=True)
class Served:
    """A model and its engine."""

    name: str
    model: Model
    engine: Engine
    size: int
    """Bytes of the file."""

    def describe(self) -> dict[str, Any]:
        """The object of `/v1/models`."""
        manifest = self.model.manifest
        return {
            "id": self.name,
            "object": "model",
            "created": _seconds(manifest.created),
            "owned_by": "charedge",
            "manifest": {"bytes": self.size, **manifest.to_dict()},
        }


def names_of(paths: Sequence[Path]) -> list[str]:
    """The names by which requests choose a model: those of the files, without `.tflite`.

    Raises:
        InvalidOption: two are the same.
    """
    names = [path.stem if path.suffix == ".tflite" else path.name for path in paths]
    for name in names:
        if names.count(name) > 1:
            raise InvalidOption("model", f"{name} is the name of two files: rename one of them.")
    return names


def load_models(paths: Sequence[Path], settings: Settings, threads: int = 1, interpreter: str | None = None) -> dict[str, Served]:
    """Load models and start their engines.

    Args:
        paths: the model files.
        settings: of the server.
        threads, interpreter: as for `charedge.load`.

    Raises:
        InvalidOption, CharedgeError: as `charedge.load`.
    """
    models = [load(path, threads, interpreter) for path in paths]
    return {
        name: Served(name, model, Engine(model, settings.concurrency, settings.queue), path.stat().st_size)
        for name, model, path in zip(names_of(paths), models, paths, strict=True)
    }


def _seconds(date: str) -> int:
    """Seconds since 1970 of a date in a manifest, 0 if it is not one."""
    try:
        moment = datetime.fromisoformat(date.replace("Z", "+00:00"))
    except ValueError:
        return 0
    return int((moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp())
