"""Benchmark of a model file on this machine, and a description of the machine."""

from __future__ import annotations

import os
import platform
import resource
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .model import Model, load

WARM_UP = 64
BATCHES = (1, 4, 8)
THREADS = (1, 2)


@dataclass(frozen=True)
class Rate:
    """The speed of one way to run the model."""

    rows: int
    threads: int
    characters_per_second: float


@dataclass(frozen=True)
class Benchmark:
    """Measurements of the whole loop, sampling and decoding included."""

    interpreter: str
    load_milliseconds: float
    """From the path to a model that has passed the probe."""
    microseconds_per_character: float
    """The median of single characters, one row, one thread."""
    microseconds_per_character_p99: float
    rates: list[Rate]
    peak_rss_bytes: int
    """Peak memory of the whole process so far."""
    machine: dict[str, str]


def run_benchmark(path: Path, characters: int = 2000, interpreter: str | None = None) -> Benchmark:
    """Measure a model file.

    Args:
        path: the model file.
        characters: number of characters to generate for each figure.
        interpreter: as for `charedge.load`.

    Returns:
        The times of single characters, the speeds of several rows and threads, and the peak memory.

    Raises:
        CharedgeError: the file does not work on this machine.
    """
    start = time.perf_counter()
    model = load(path, 1, interpreter)
    loading = time.perf_counter() - start
    times = character_times(model, characters)
    rates = []
    for threads in THREADS:
        threaded = model if threads == 1 else load(path, threads, interpreter)
        rates += [Rate(rows, threads, round(rate(threaded, rows, characters), 1)) for rows in BATCHES]
    return Benchmark(
        interpreter=model.interpreter,
        load_milliseconds=round(loading * 1e3, 2),
        microseconds_per_character=round(float(np.median(times)) * 1e6, 2),
        microseconds_per_character_p99=round(float(np.percentile(times, 99)) * 1e6, 2),
        rates=rates,
        peak_rss_bytes=peak_rss_bytes(),
        machine=describe_machine(),
    )


def character_times(model: Model, characters: int) -> np.ndarray:
    """The seconds between consecutive characters: float64 [characters]."""
    stamps = np.empty(characters + 1)
    pieces = model.stream(length=WARM_UP + characters + 1, seed=1)
    for _ in range(WARM_UP):
        next(pieces)
    clock = time.perf_counter
    for i in range(characters + 1):
        next(pieces)
        stamps[i] = clock()
    return np.diff(stamps)


def rate(model: Model, rows: int, characters: int) -> float:
    """Characters per second, summed over all rows."""
    length = max(characters // rows, 1)
    model.generate_batch([""] * rows, length=WARM_UP, seed=1)
    start = time.perf_counter()
    model.generate_batch([""] * rows, length=length, seed=1)
    return rows * length / (time.perf_counter() - start)


def peak_rss_bytes() -> int:
    """The peak memory of this process, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def describe_machine() -> dict[str, str]:
    """The processor and, if the system reports them, its clock and temperature."""
    machine = {"processor": _processor(), "architecture": platform.machine(), "cores": f"{os.cpu_count()} cores"}
    for name, path, unit, scale in (
        ("clock", "/sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq", "MHz", 1e3),
        ("temperature", "/sys/class/thermal/thermal_zone0/temp", "°C", 1e3),
    ):
        try:
            machine[name] = f"{int(Path(path).read_text()) / scale:.0f} {unit}"
        except (OSError, ValueError):
            continue
    return machine


def _processor() -> str:
    """The model of the board if the system names it, as on a Raspberry Pi, else of the processor."""
    try:
        return Path("/proc/device-tree/model").read_text().rstrip("\0\n")
    except OSError:
        pass
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.lower().startswith("model name") and ":" in line]
    return names[0] if names else platform.processor() or platform.machine()
