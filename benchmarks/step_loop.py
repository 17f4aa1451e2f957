"""Time per character: the whole loop of `Model.stream` and the interpreter's own `invoke()`, in the same run.

python benchmarks/step_loop.py            models with random weights, the speed of which is that of trained ones
python benchmarks/step_loop.py m.tflite   a file of your own
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from arguments import positive
from charedge.runtime.interpreter import Step
from charedge.runtime.model_file import read_model_file

from charedge import load

START = "A"
TEMPERATURE = 0.8
WARM_UP = 500  # characters

Loop = Callable[[int], object]
"""A function that makes a number of characters."""


def whole_loop(path: Path, interpreter: str | None = None) -> Loop:
    """A loop of `Model.stream`, sampling and decoding included."""
    generator = load(path, interpreter=interpreter)

    def loop(characters: int) -> None:
        for _ in generator.stream(START, length=characters, temperature=TEMPERATURE, seed=1):
            pass

    return loop


def invoke_alone(path: Path, interpreter: str | None = None) -> Loop:
    """A loop of `invoke()` on one input, whose state is not zero: some kernels skip zeros."""
    step = Step.load(read_model_file(path), interpreter=interpreter)
    state = step.zeros()
    for token in range(1, 9):
        state = step(np.array([token], np.int32), state)[1].copy()
    invoke = step._interpreter.invoke

    def loop(characters: int) -> None:
        for _ in range(characters):
            invoke()

    return loop


def batch_of(rows: int, path: Path) -> Loop:
    """A loop of `Model.generate_batch`, whose rows share the number of characters and draw differently."""
    generator = load(path)

    def loop(characters: int) -> None:
        generator.generate_batch([START] * rows, length=max(1, characters // rows), temperature=TEMPERATURE, seed=1)

    return loop


def alternate(loops: dict[str, Loop], rounds: int, seconds: float) -> dict[str, list[float]]:
    """Microseconds per character of each loop in each round; the loops take turns, so that drift affects all equally."""

    def timed(loop: Loop, characters: int) -> float:
        start = time.perf_counter()
        loop(characters)
        return time.perf_counter() - start

    lengths = {}
    for name, loop in loops.items():
        loop(WARM_UP)
        lengths[name] = max(WARM_UP, round(WARM_UP * seconds / timed(loop, WARM_UP)))
    times: dict[str, list[float]] = {name: [] for name in loops}
    for _ in range(rounds):
        for name, loop in loops.items():
            times[name].append(timed(loop, lengths[name]) / lengths[name] * 1e6)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("models", nargs="*", type=Path)
    parser.add_argument("--interpreter", help="as of `charedge generate`")
    parser.add_argument("--rounds", type=positive, default=9)
    parser.add_argument("--seconds", type=float, default=0.1, help="of each loop in each round")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    medians = {}
    with tempfile.TemporaryDirectory() as folder:
        print(f"{'model':24} {'bytes':>11} {'invoke us':>10} {'loop us':>10} {'ratio':>7}")
        for path in options.models or random_models(Path(folder)):
            loops = {"invoke": invoke_alone(path, options.interpreter), "loop": whole_loop(path, options.interpreter)}
            times = {name: statistics.median(rounds) for name, rounds in alternate(loops, options.rounds, options.seconds).items()}
            medians[str(path)] = times
            invoke, loop = times.values()
            print(f"{path.stem:24} {path.stat().st_size:11,} {invoke:10.1f} {loop:10.1f} {loop / invoke:7.2f}", flush=True)
    if options.json:
        options.json.write_text(json.dumps(medians, indent=2) + "\n")


def random_models(folder: Path) -> Iterator[Path]:
    from random_models import random_model  # what makes models is not needed to measure one, on a device

    for units in (256, 512, 1024):
        for quantization in ("float32", "int8", "int4"):
            yield random_model(folder, units, quantization)


if __name__ == "__main__":
    main()
