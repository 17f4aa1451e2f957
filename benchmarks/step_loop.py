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

CHARACTERS = "\n !$&',-.3:;?ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"  # 65, as Shakespeare has
SOURCE = Source("benchmark", "", "CC0-1.0", "", "NFC", "skip", "\n", {})


def median_microseconds(run: Callable[[int], object], steps: int, repeats: int) -> float:
    """The median over the repeats of the time of one step."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run(steps)
        times.append((time.perf_counter() - start) / steps * 1e6)
    return statistics.median(times)


def measure(path: Path, steps: int, repeats: int) -> tuple[float, float]:
    """Microseconds a character of `invoke()` alone and of the whole loop, sampling at 0.8 and decoding included."""
    step, generator = Step(read_package(path)), Generator.load(path)
    step(np.ones(1, np.int32), step.zeros())
    invoke = step._interpreter.invoke

    def invokes(count: int) -> None:
        for _ in range(count):
            invoke()

    def characters(count: int) -> None:
        for _ in generator.stream("A", count, temperature=0.8, seed=1):
            pass

    for warm_up in (invokes, characters):
        warm_up(steps)
    return median_microseconds(invokes, steps, repeats), median_microseconds(characters, steps, repeats)


def random_models(folder: Path) -> list[Path]:
    """GRUs of 65 characters at several sizes and quantisations."""
    paths = []
    vocabulary = Vocabulary.of(CHARACTERS)
    for units in (256, 512, 1024):
        weights = Weights.random("gru", 1, units, len(vocabulary), 256)
        for quantization in ("float32", "int8"):
            ids = np.random.default_rng(0).integers(1, len(vocabulary), 100).astype(np.int32)
            path = folder / f"gru-{units}-{quantization}.tflite"
            path.write_bytes(assemble(weights, vocabulary, SOURCE, quantization, ids, reference=0.0).data)
            paths.append(path)
    return paths


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("models", nargs="*", type=Path)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        paths = options.models or random_models(Path(folder))
        print(f"{'model':24} {'bytes':>11} {'invoke us':>10} {'loop us':>10} {'ratio':>7}")
        for path in paths:
            invoke, loop = measure(path, options.steps, options.repeats)
            print(f"{path.stem:24} {path.stat().st_size:11,} {invoke:10.1f} {loop:10.1f} {loop / invoke:7.2f}")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
