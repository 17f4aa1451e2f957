"""What a character costs: the whole loop of `Generator.stream` beside the interpreter's own `invoke()`, in the same run.

python benchmarks/step_loop.py            models with random weights, the speed of which is that of trained ones
python benchmarks/step_loop.py m.tflite   a file of your own
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from charedge.converter.assembly import Source, assemble
from charedge.converter.step import Weights
from charedge.runtime import Generator
from charedge.runtime.interpreter import Step
from charedge.runtime.package import read_package
from charedge.runtime.vocabulary import Vocabulary

VOCABULARY = Vocabulary.of("\n !$&',-.3:;?ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")  # 65, as Shakespeare has
EMBEDDING_DIM = 256
START = "A"
TEMPERATURE = 0.8
SOURCE = Source("benchmark", "", "CC0-1.0", "", "NFC", "skip", "\n", {})
WARM_UP = 500  # characters

Loop = Callable[[int], object]
"""Makes so many characters."""


def random_weights(units: int) -> Weights:
    """A GRU that was never trained."""
    return Weights.random("gru", 1, units, len(VOCABULARY), EMBEDDING_DIM)


def random_model(folder: Path, units: int, quantization: str) -> Path:
    """The model file of `random_weights`."""
    ids = np.random.default_rng(0).integers(1, len(VOCABULARY), 100).astype(np.int32)
    path = folder / f"gru-{units}-{quantization}.tflite"
    unknown_reference = [np.zeros((len(ids) - 1, len(VOCABULARY)), np.float32)]
    (made,) = assemble(random_weights(units), VOCABULARY, SOURCE, [quantization], ids, unknown_reference)
    path.write_bytes(made.data)
    return path


def whole_loop(path: Path) -> Loop:
    """`Generator.stream`, sampling and decoding included."""
    generator = Generator.load(path)

    def loop(characters: int) -> None:
        for _ in generator.stream(START, length=characters, temperature=TEMPERATURE, seed=1):
            pass

    return loop


def invoke_alone(path: Path) -> Loop:
    """The interpreter's `invoke()`, again and again on the same input."""
    step = Step(read_package(path))
    step(np.ones(1, np.int32), step.zeros())
    invoke = step._interpreter.invoke

    def loop(characters: int) -> None:
        for _ in range(characters):
            invoke()

    return loop


def batch_of(rows: int, path: Path) -> Loop:
    """`Generator.generate_batch`, which shares the characters out among its rows."""
    generator = Generator.load(path)
    prompts = list(VOCABULARY.tokens[-rows:])

    def loop(characters: int) -> None:
        generator.generate_batch(prompts, length=max(1, characters // rows), temperature=TEMPERATURE, seed=1)

    return loop


def alternate(loops: dict[str, Loop], rounds: int, seconds: float) -> dict[str, list[float]]:
    """Microseconds a character of each loop in each round; the loops take turns, so that a machine's drift hits all alike."""

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
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=0.1, help="of each loop in each round")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        paths = options.models or [
            random_model(Path(folder), units, quantization)
            for units in (256, 512, 1024)
            for quantization in ("float32", "int8", "int4")
        ]
        print(f"{'model':24} {'bytes':>11} {'invoke us':>10} {'loop us':>10} {'ratio':>7}")
        for path in paths:
            times = alternate({"invoke": invoke_alone(path), "loop": whole_loop(path)}, options.rounds, options.seconds)
            invoke, loop = statistics.median(times["invoke"]), statistics.median(times["loop"])
            print(f"{path.stem:24} {path.stat().st_size:11,} {invoke:10.1f} {loop:10.1f} {loop / invoke:7.2f}")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
