"""charedge itself, on LiteRT."""

from __future__ import annotations

import tempfile
from pathlib import Path

from step_loop import Loop, batch_of, invoke_alone, random_model, whole_loop


def loops(units: int) -> dict[str, Loop]:
    with tempfile.TemporaryDirectory() as folder:
        path = random_model(Path(folder), units, "int8")
        return {
            "charedge int8": whole_loop(path),
            "charedge int8, invoke() alone": invoke_alone(path),
            "charedge int8, batch of 8": batch_of(8, path),
        }
