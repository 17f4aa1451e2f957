"""How time and memory grow with the units of a network, the rows of a batch and the length of a corpus.

python benchmarks/growth.py                 everything; a corpus of 1 GB takes 2 GB of disk for as long as it is read
python benchmarks/growth.py --largest 10    no corpus of more than 10 MB
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from arguments import positive
from charedge.runtime.benchmark import describe_machine
from process import charedge, cost
from random_models import VOCABULARY, bytes_read, random_model, random_weights
from read_floor import reading
from step_loop import alternate, batch_of, whole_loop
from table import Columns, table

QUANTIZATIONS = ("float32", "int8", "int4")
UNITS = (128, 256, 512, 1024, 2048)
ROWS = (1, 2, 4, 8, 16, 32, 64)
BATCH_SECONDS = 4  # times those of one row, so that allocating the tensors of each batch weighs little
MEGABYTE = 1_000_000
ENCODE = """
import sys, time
from charedge.trainer.encoding import encode_corpus
began = time.perf_counter()
encode_corpus(sys.argv[1:], "NFC")
print(time.perf_counter() - began)
"""


@dataclass(frozen=True)
class Size:
    """What a GRU of one size costs in one profile."""

    units: int
    quantization: str
    bytes: int
    """Size of the file."""
    bytes_read: int
    """Size of the weights that a step reads."""
    microseconds_per_character: float
    """Includes sampling and decoding."""
    read_floor_microseconds: float
    """Time to read `bytes_read` bytes once."""
    peak_rss_bytes: int
    """Peak memory of `charedge generate --length 1`."""


@dataclass(frozen=True)
class Batch:
    """What a batch of rows costs in one profile."""

    units: int
    quantization: str
    rows: int
    microseconds_per_character: float
    """Time per character of each row."""


@dataclass(frozen=True)
class Corpus:
    """What encoding a text for training costs, measured in a process of its own."""

    bytes: int
    seconds: float
    peak_rss_bytes: int


SIZES: Columns[Size] = {
    "units": lambda size: f"{size.units}",
    "profile": lambda size: size.quantization,
    "file bytes": lambda size: f"{size.bytes:,}",
    "read bytes": lambda size: f"{size.bytes_read:,}",
    "us/char": lambda size: f"{size.microseconds_per_character:.1f}",
    "read floor us": lambda size: f"{size.read_floor_microseconds:.1f}",
    "peak MiB": lambda size: f"{size.peak_rss_bytes / 2**20:.1f}",
}
BATCHES: Columns[Batch] = {
    "units": lambda batch: f"{batch.units}",
    "profile": lambda batch: batch.quantization,
    "rows": lambda batch: f"{batch.rows}",
    "us/char/row": lambda batch: f"{batch.microseconds_per_character:.1f}",
}
CORPORA: Columns[Corpus] = {
    "corpus bytes": lambda corpus: f"{corpus.bytes:,}",
    "seconds": lambda corpus: f"{corpus.seconds:.2f}",
    "MB/s": lambda corpus: f"{corpus.bytes / MEGABYTE / corpus.seconds:.1f}",
    "peak MiB": lambda corpus: f"{corpus.peak_rss_bytes / 2**20:.1f}",
}


def measure_sizes(folder: Path, units: Sequence[int], rounds: int, seconds: float) -> list[Size]:
    """Measure each network in each profile, and the reading of its weights, all taking turns."""
    shapes = [(size, quantization) for quantization in QUANTIZATIONS for size in units]
    paths = {shape: random_model(folder, *shape) for shape in shapes}
    reads = {(size, quantization): bytes_read(random_weights(size), quantization) for size, quantization in shapes}
    loops = {f"{shape}": whole_loop(path) for shape, path in paths.items()}
    loops |= {f"read {shape}": reading(reads[shape]) for shape in shapes}
    times = {name: statistics.median(values) for name, values in alternate(loops, rounds, seconds).items()}
    return [
        Size(
            *shape,
            bytes=path.stat().st_size,
            bytes_read=reads[shape],
            microseconds_per_character=times[f"{shape}"],
            read_floor_microseconds=times[f"read {shape}"],
            peak_rss_bytes=cost(*charedge(sys.executable, "generate", path, "--length", 1)).peak_rss_bytes,
        )
        for shape, path in paths.items()
    ]


def measure_batches(folder: Path, units: int, rows: Sequence[int], rounds: int, seconds: float) -> list[Batch]:
    """Measure each number of rows in each profile, taking turns."""
    paths = {quantization: random_model(folder, units, quantization) for quantization in QUANTIZATIONS}
    loops = {f"{name} {count}": batch_of(count, path) for name, path in paths.items() for count in rows}
    times = {name: statistics.median(values) for name, values in alternate(loops, rounds, seconds).items()}
    return [Batch(units, name, count, times[f"{name} {count}"]) for name in paths for count in rows]


def measure_corpora(folder: Path, largest: int) -> Iterator[Corpus]:
    """Measure texts of 1, 10, 100, ... megabytes: each is made, encoded with an empty cache, and deleted."""
    block = "".join(np.random.default_rng(0).choice(VOCABULARY.tokens[1:], MEGABYTE)).encode()
    megabytes = 1
    while megabytes <= largest:
        with tempfile.TemporaryDirectory(dir=folder) as place:
            text = Path(place) / "text.txt"
            with text.open("wb") as file:
                file.writelines(block for _ in range(megabytes))
            os.environ["XDG_CACHE_HOME"] = place
            encoding = cost(sys.executable, "-c", ENCODE, text)
        yield Corpus(megabytes * MEGABYTE, float(encoding.output), encoding.peak_rss_bytes)
        megabytes *= 10


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--units", type=positive, nargs="+", default=UNITS)
    parser.add_argument("--rows", type=positive, nargs="+", default=ROWS)
    parser.add_argument("--batch-units", type=positive, default=1024, help="of the network that has several rows")
    parser.add_argument("--largest", type=positive, default=1000, metavar="MB", help="the longest corpus")
    parser.add_argument("--rounds", type=positive, default=5)
    parser.add_argument("--seconds", type=float, default=0.1, help="of each loop in each round")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()

    machine = describe_machine()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        print(f"{machine['processor']}, one thread, medians of {options.rounds} rounds\n", flush=True)
        sizes = measure_sizes(folder, options.units, options.rounds, options.seconds)
        print(table(SIZES, sizes), flush=True)
        batches = measure_batches(folder, options.batch_units, options.rows, options.rounds, BATCH_SECONDS * options.seconds)
        print(f"\n{table(BATCHES, batches)}", flush=True)
        corpora = list(measure_corpora(folder, options.largest))
        print(f"\n{table(CORPORA, corpora)}")
    if options.json:
        figures = {"sizes": sizes, "batches": batches, "corpora": corpora}
        rows = {name: [asdict(row) for row in rows] for name, rows in figures.items()}
        options.json.write_text(json.dumps({"machine": machine, **rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
