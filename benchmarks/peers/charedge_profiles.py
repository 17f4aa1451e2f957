"""charedge itself, on LiteRT."""

from __future__ import annotations

import tempfile
from pathlib import Path

from random_models import random_model
from step_loop import Loop, batch_of, invoke_alone, whole_loop

QUANTIZATIONS = ("int8", "int4", "float16", "float32")
ROWS = 8


def loops(units: int) -> dict[str, Loop]:
    made: dict[str, Loop] = {}
    with tempfile.TemporaryDirectory() as folder:
        for quantization in QUANTIZATIONS:
            path, name = random_model(Path(folder), units, quantization), f"charedge {quantization}"
            made[name] = whole_loop(path)
            made[f"{name}, invoke() alone"] = invoke_alone(path)
            made[f"{name}, batch of {ROWS}"] = batch_of(ROWS, path)
    return made
