"""Check training on this machine's GPUs against its CPU, and measure it: for a report of a problem, and before a release.

    python tests/gpu.py [--json FILE] [--check NAME]... [--precision NAME]...
    python tests/gpu.py --cpu --units 32 --steps 5      the same on the CPU, to try the script

Without a GPU that TensorFlow can use it says so, with TensorFlow's reason. The exit status is 1 if a check failed. Whatever runs in
TensorFlow runs in a process of its own, so that a check that fails or runs out of memory leaves the others alone.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import numpy as np
from conftest import REPOSITORY, command

sys.path.append(str(REPOSITORY / "benchmarks"))
from peers import start
from table import table
from training import FIT, charedge_speed, peer_speed

PASSED, FAILED, NOT_APPLICABLE = "passed", "FAILED", "not applicable"
PRECISIONS = ("float32", "mixed_float16")
SHAPES = ((1, 1024), (2, 608))
"""Layers and units: the preset `tutorial`, and `large`."""
BATCH_SIZE = 24
"""Batch size of the trainings that are resumed and converted: two, three, four, six, eight or twelve GPUs can share it."""
SPEED_STEPS = 4
"""Steps that are timed for each that is compared."""

LOSS_TOLERANCES = {"float32": 0.005, "mixed_float16": 0.005, "mixed_bfloat16": 0.05}
"""Nats, in 50 steps. Between precisions on one CPU, at 2 x 64 to 2 x 256 units, the largest differences were 0.0002 in float16 and
0.004 in bfloat16; with noise for the gradient of one gate it was 0.6. A GPU's float32 rounds to float16's 11 bits (TF32)."""
REPEAT_TOLERANCE = 0.005
"""Nats, after two epochs: a GPU adds in an order that varies, so that two trainings differ as two precisions do."""
ONE_CPU_DIFFERENCE = 1e-4
"""Nats: where nothing rounds differently but the order of sums over devices; 5e-7 was measured."""


class CheckFailed(Exception):
    """A process that ended with an error, by the last line that it wrote."""


@dataclass
class Row:
    """A line of the table."""

    check: str
    result: str
    figures: str
    values: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Trial:
    """The options of the checks."""

    folder: Path
    precisions: tuple[str, ...]
    units: int
    shapes: tuple[tuple[int, int], ...]
    steps: int
    rounds: int
    cards: int
    """0 on the CPU."""

    @property
    def text(self) -> Path:
        return self.folder / "topics.txt"


def output(arguments: list[Any], hidden: bool = False) -> str:
    """What a process writes to stdout.

    Args:
        arguments: the command.
        hidden: whether it sees no GPU.

    Raises:
        CheckFailed: its exit status is not 0.
    """
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1"} if hidden else None
    arguments = [str(part) for part in arguments]
    result = subprocess.run(arguments, env=environment, capture_output=True, text=True, errors="replace", check=False)
    if result.returncode:
        said = [line for line in result.stderr.splitlines() if line.strip()]
        raise CheckFailed(said[-1].strip() if said else f"{' '.join(arguments[:5])} ended with status {result.returncode}")
    return result.stdout


def child(*arguments: Any, hidden: bool = False) -> Any:
    """The result of a measurement of `gpu_child.py`."""
    program = [sys.executable, REPOSITORY / "tests" / "gpu_child.py", *arguments]
    return json.loads(output(program, hidden).splitlines()[-1])


def verdict(check: str, difference: float, tolerance: float, unit: str = " nats", **values: Any) -> Row:
    """A row for a difference with an upper limit; NaN fails."""
    figures = f"largest difference {difference:.2g}{unit}, {tolerance:g} allowed"
    return Row(
        check, PASSED if difference <= tolerance else FAILED, figures, {"difference": difference, "tolerance": tolerance, **values}
    )


def largest_difference(found: list[float], expected: list[float]) -> float:
    return float(np.max(np.abs(np.subtract(found, expected))))


def gradients(trial: Trial) -> Iterator[Row]:
    """The check that `charedge train` makes before its first step, for every cell and precision."""
    for found in child("gradients", *trial.precisions):
        name = f"gradient, {found['cell']} {found['precision']}"
        if "error" in found:
            yield Row(name, FAILED, found["error"], found)
        else:
            yield Row(name, PASSED, f"largest relative difference {found['difference']:.2g}, {found['seconds']:.1f} s", found)


@lru_cache
def device_losses(trial: Trial, devices: int, precisions: tuple[str, ...]) -> dict[str, list[float]]:
    return child("losses", trial.text, trial.units, trial.steps, devices, *precisions)


def losses(trial: Trial) -> Iterator[Row]:
    """The losses of the first steps, against float32 on the CPU."""
    expected = child("losses", trial.text, trial.units, trial.steps, 1, "float32", hidden=True)["float32"]
    found = device_losses(trial, 1, trial.precisions)
    for precision, values in found.items():
        difference = largest_difference(values, expected)
        yield verdict(f"{trial.steps} steps, {precision}", difference, LOSS_TOLERANCES[precision], losses=values, expected=expected)


def devices(trial: Trial) -> Iterator[Row]:
    """All GPUs against one; two logical devices of the CPU against one."""
    if trial.cards == 1:
        yield Row("several devices", NOT_APPLICABLE, "one GPU")
        return
    count = trial.cards or 2
    found, expected = (device_losses(trial, n, trial.precisions[:1])[trial.precisions[0]] for n in (count, 1))
    difference, tolerance = largest_difference(found, expected), REPEAT_TOLERANCE if trial.cards else ONE_CPU_DIFFERENCE
    yield verdict(
        f"{count} {'GPUs' if trial.cards else 'devices of the CPU'}", difference, tolerance, losses=found, expected=expected
    )


def train(trial: Trial, name: str, *options: Any) -> Path:
    """A run by the command line."""
    run = trial.folder / name
    output(command("train", *options, "--output", run, "--quiet"))
    return run


def settings(trial: Trial) -> list[Any]:
    """Options of the trainings that are compared: a step must not depend on the number of epochs."""
    network = ["--units", trial.units, "--layers", 1, "--embedding-dim", 64, "--dropout", 0.1, "--weight-drop", 0.1]
    schedule = ["--learning-rate", 0.002, "--learning-rate-decay", "none", "--warmup", 0]
    return [trial.text, *network, *schedule, "--batch-size", BATCH_SIZE, "--precision", trial.precisions[0]]


@lru_cache
def uninterrupted(trial: Trial) -> Path:
    return train(trial, "uninterrupted", *settings(trial), "--epochs", 2)


def history(run: Path, column: str) -> list[float]:
    with (run / "history.csv").open() as file:
        return [float(row[column]) for row in csv.DictReader(file)]


def resume(trial: Trial) -> Iterator[Row]:
    """An epoch, and another in a process that resumes, against two in one."""
    expected = uninterrupted(trial)
    train(trial, "resumed", *settings(trial), "--epochs", 1)
    found = train(trial, "resumed", "--resume", "--epochs", 2)
    column = "validation_nats_per_character"
    yield verdict("save and resume", largest_difference(history(found, column), history(expected, column)), REPEAT_TOLERANCE)


def convert(trial: Trial) -> Iterator[Row]:
    """The model file that is made beside a GPU, and the one that is made without."""
    hashes = []
    for name, hidden in (("here", False), ("cpu", True)):
        path = trial.folder / f"{name}.tflite"
        output(command("convert", uninterrupted(trial), "--name", "model", "--output", path), hidden)
        hashes.append(hashlib.sha256(path.read_bytes()).hexdigest())
    same = hashes[0] == hashes[1]
    figures = f"SHA-256 {hashes[0][:12]}" if same else f"SHA-256 {hashes[0][:12]} here, {hashes[1][:12]} on the CPU"
    yield Row("convert, the same bytes", PASSED if same else FAILED, figures, {"here": hashes[0], "cpu": hashes[1]})


def speed(trial: Trial) -> Iterator[Row]:
    """Characters a second beside the TensorFlow tutorial's `fit` of the same network, taking turns."""
    for layers, units in trial.shapes:
        for precision in trial.precisions:
            name = f"speed, GRU {layers} x {units} {precision}"
            yield from attempt(
                name, lambda shape=(layers, units), precision=precision, name=name: [compared(trial, name, *shape, precision)]
            )


@contextmanager
def one_card() -> Iterator[None]:
    """`fit` takes one GPU: with several, `charedge train` must not take all of them."""
    before = os.environ.get("CUDA_VISIBLE_DEVICES")
    os.environ["CUDA_VISIBLE_DEVICES"] = (before or "0").split(",")[0]
    try:
        yield
    finally:
        os.environ.pop("CUDA_VISIBLE_DEVICES")
        os.environ |= {} if before is None else {"CUDA_VISIBLE_DEVICES": before}


def compared(trial: Trial, name: str, layers: int, units: int, precision: str) -> Row:
    steps = trial.steps * SPEED_STEPS
    with one_card():
        fit = peer_speed(start("tensorflow_fit", units, layers, precision)[FIT], steps)
        ours = charedge_speed(trial.folder, units, precision, steps, layers=layers)
        rounds = [(fit(), ours()) for _ in range(trial.rounds)]
    of_fit, of_ours = (statistics.median(values) for values in zip(*rounds, strict=True))
    figures = f"{of_ours:,.0f} characters/s, fit() {of_fit:,.0f}, ratio {of_ours / of_fit:.2f}"
    return Row(name, PASSED, figures, {"charedge": of_ours, "fit": of_fit, "ratio": of_ours / of_fit, "rounds": rounds})


CHECKS: dict[str, Callable[[Trial], Iterator[Row]]] = {
    "gradients": gradients,
    "losses": losses,
    "resume": resume,
    "devices": devices,
    "convert": convert,
    "speed": speed,
}


def attempt(name: str, check: Callable[[], Iterable[Row]]) -> list[Row]:
    """The rows of a check, the last of which has failed if it could not be made to its end."""
    rows: list[Row] = []
    try:
        rows.extend(check())
    except EOFError:
        rows.append(Row(name, FAILED, "a process ended without an answer: its memory may not have been enough"))
    except CheckFailed as error:
        rows.append(Row(name, FAILED, str(error)[:300]))
    except Exception as error:  # whatever it is, the others are made
        rows.append(Row(name, FAILED, f"{type(error).__name__}: {error}".splitlines()[0][:300]))
    return rows


def driver() -> list[str]:
    """A line of `nvidia-smi` for each card."""
    query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(query, capture_output=True, text=True, errors="replace", timeout=60, check=True).stdout.splitlines()
    except (OSError, subprocess.SubprocessError):
        return []


def header(found: dict[str, Any], cpu: bool) -> str:
    cards = [f"card: {line}" for line in driver()] or [f"card: {gpu['name']} (no nvidia-smi)" for gpu in found["gpus"]]
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    return "\n".join([*([] if cpu else cards), *(["on the CPU"] if cpu else []), versions, *found["warnings"]])


def write_text(path: Path, characters: int) -> None:
    text = "\n".join(topics[name] for name in sorted(topics))
    path.write_text((text * (characters // len(text) + 1))[:characters], encoding="utf-8")


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cpu", action="store_true", help="on the CPU, to try the script")
    parser.add_argument("--check", action="append", choices=list(CHECKS), help="only this one; repeatable")
    parser.add_argument("--precision", action="append", choices=list(LOSS_TOLERANCES), help="only this one; repeatable")
    parser.add_argument("--units", type=int, help="of every network  [default: 256; 1024 and 608 where speed is measured]")
    parser.add_argument("--steps", type=int, default=50, help="training steps that are compared; four times as many are timed")
    parser.add_argument("--rounds", type=int, default=3, help="how often speeds are measured, of which the median counts")
    parser.add_argument("--json", type=Path, metavar="FILE", help="the figures to a file, too")
    return parser.parse_args()


def main() -> int:
    """Run the program; the exit status is 1 if a check failed."""
    options = parsed()
    os.environ |= {"TF_FORCE_GPU_ALLOW_GROWTH": "true", "TF_CPP_MIN_LOG_LEVEL": "3"}  # several processes share a card
    if options.cpu:
        os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    found = child("describe")
    if not found["gpus"] and not options.cpu:
        print(f"no GPU was tested: {' '.join(found['warnings']) or 'TensorFlow finds none on this machine.'}")
        return 0
    print(header(found, options.cpu), flush=True)
    precisions = tuple(options.precision or (*PRECISIONS, *(["mixed_bfloat16"] if options.cpu else [])))
    shapes = tuple((layers, options.units or units) for layers, units in SHAPES)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        counts = options.units or 256, shapes, options.steps, options.rounds, len(found["gpus"])
        trial = Trial(Path(folder), precisions, *counts)
        write_text(trial.text, max(20_000, 3_000 * (options.steps + 2)))
        for name in options.check or CHECKS:
            began = time.monotonic()
            rows += attempt(name, lambda check=CHECKS[name]: check(trial))
            print(f"{name}: {time.monotonic() - began:.0f} s", file=sys.stderr)
    print("\n" + table({"check": lambda row: row.check, "result": lambda row: row.result, "": lambda row: row.figures}, rows))
    if options.json:
        options.json.write_text(json.dumps({**found, "driver": driver(), "rows": [asdict(row) for row in rows]}, indent=2) + "\n")
    return int(any(row.result == FAILED for row in rows))


if __name__ == "__main__":
    sys.exit(main())
