"""Training speed: characters a second of `charedge train`, of the TensorFlow tutorial's `fit` and of PyTorch, in one run.

python benchmarks/training.py                a GRU of 1024, batches of 64 windows of 100 characters
python benchmarks/training.py --units 512    another
python benchmarks/training.py --json FILE    the figures to a file, too
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
from arguments import positive
from charedge.trainer.config import PRECISIONS
from peers import start
from random_models import EMBEDDING_DIM, VOCABULARY

PEERS = {"tensorflow_fit": "tensorflow", "pytorch_training": "torch"}
"""The modules in `peers/`, and the distribution that each of them measures. Their `loops(units)` are rows of the table."""

FIT = "TensorFlow tutorial, fit()"
VOCABULARY_SIZE, BATCH_SIZE, SEQUENCE_LENGTH = len(VOCABULARY), 64, 100
BATCH_CHARACTERS = BATCH_SIZE * SEQUENCE_LENGTH
VALIDATION_SPLIT = 0.1

Steps = Callable[[int], object]
"""A function that trains on a number of batches."""

Speed = Callable[[], float]
"""A function that trains for a while and returns characters a second, start-up excluded."""


def random_windows(count: int) -> np.ndarray:
    """Random token ids, int32 [count, SEQUENCE_LENGTH + 1]: their values do not affect the speed."""
    return np.random.default_rng(0).integers(0, VOCABULARY_SIZE, (count, SEQUENCE_LENGTH + 1), np.int32)


def peer_speed(train: Steps, steps: int) -> Speed:
    train(2)  # it compiles in the first

    def speed() -> float:
        began = time.perf_counter()
        train(steps)
        return steps * BATCH_CHARACTERS / (time.perf_counter() - began)

    return speed


def charedge_speed(folder: Path, units: int, precision: str, steps: int, layers: int = 1, **others: object) -> Speed:
    """Speed of the second epoch of the whole program, with other options than the tutorial's: the first epoch compiles."""
    characters = int((steps + 2) * BATCH_CHARACTERS / (1 - VALIDATION_SPLIT))
    text, run = folder / "text.txt", folder / "run"
    text.write_text("".join(np.random.default_rng(0).choice(VOCABULARY.tokens[1:], characters)))
    options = {
        "--preset": "tutorial",
        "--layers": layers,
        "--units": units,
        "--epochs": 2,
        "--precision": precision,
        "--batch-size": BATCH_SIZE,
        "--sequence-length": SEQUENCE_LENGTH,
        "--embedding-dim": EMBEDDING_DIM,
        "--validation-split": VALIDATION_SPLIT,
        **{f"--{name.replace('_', '-')}": value for name, value in others.items()},
    }
    command = [sys.executable, "-m", "charedge", "train", text, "--output", run, "--overwrite", "--quiet"]
    command += [part for option in options.items() for part in option]

    def speed() -> float:
        subprocess.run([str(part) for part in command], check=True, stdout=subprocess.DEVNULL)
        with (run / "history.csv").open() as file:
            return float(list(csv.DictReader(file))[-1]["characters_per_second"])

    return speed


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--units", type=positive, default=1024)
    parser.add_argument("--precision", nargs="+", default=["auto"], choices=("auto", *PRECISIONS), help="as in `charedge train`")
    parser.add_argument("--rounds", type=positive, default=3)
    parser.add_argument("--steps", type=positive, default=6, help="batches of each in each round")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()

    os.environ.update({"CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "3"})
    speeds: dict[str, Speed] = {}
    versions = {}
    for module, distribution in PEERS.items():
        try:
            versions[distribution] = version(distribution)
            speeds |= {name: peer_speed(train, options.steps) for name, train in start(module, options.units).items()}
        except ModuleNotFoundError as error:
            print(f"{module} is left out: {error.name} is not installed", file=sys.stderr)
    with tempfile.TemporaryDirectory() as folder:
        for precision in options.precision:
            speeds[f"charedge train, {precision}"] = charedge_speed(Path(folder), options.units, precision, options.steps)
        rounds: dict[str, list[float]] = {name: [] for name in speeds}
        for _ in range(options.rounds):  # they take turns, so that a machine's drift hits all alike
            for name, speed in speeds.items():
                rounds[name].append(speed())

    medians = {name: statistics.median(values) for name, values in rounds.items()}
    ratios = {name: value / medians[FIT] for name, value in medians.items()} if FIT in medians else {}
    print(
        f"GRU of {options.units}, embedding {EMBEDDING_DIM}, {VOCABULARY_SIZE} tokens, {BATCH_SIZE} x {SEQUENCE_LENGTH} characters"
    )
    print(", ".join(f"{distribution} {installed}" for distribution, installed in versions.items()))
    print(f"\n{'':34} {'characters/s':>12} {'ratio':>7}")
    for name, value in medians.items():
        print(f"{name:34} {value:12,.0f} {ratios.get(name, float('nan')):7.2f}")
    if options.json:
        figures = {
            "units": options.units,
            "versions": versions,
            "characters_per_second": medians,
            "ratios": ratios,
            "rounds": rounds,
        }
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
