"""Model files on each interpreter: bytes, nats/character, microseconds/character, start-up and memory.

python benchmarks/profiles.py MODEL... --text held_out.txt     files, or the folder of `charedge convert --all`
python benchmarks/profiles.py MODEL... --text held_out.txt --python .venv-tflite/bin/python     on tflite-runtime, too
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from arguments import positive
from charedge.runtime.benchmark import describe_machine
from charedge.runtime.errors import CharedgeError
from charedge.runtime.interpreter import MODULES
from charedge.runtime.model_file import read_model_file
from process import charedge, cost, output
from table import Columns, table

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Row:
    """The measurements of a model file on one interpreter."""

    name: str
    quantization: str
    bytes: int
    interpreter: str
    """Name and version."""
    nats_per_character: float
    """Loss with the state carried through the text."""
    windows_nats_per_character: float
    """Loss over windows of 256, each from a zero state, as nanoGPT's figures are measured."""
    microseconds_per_character: float
    """Includes sampling and decoding."""
    invoke_microseconds: float
    """The part of it spent in the interpreter."""
    startup_seconds: float
    """Duration of `charedge generate --length 1`, from its start to its end."""
    python_seconds: float
    """The part of it that the same Python takes for an empty program."""
    peak_rss_bytes: int
    """Peak memory of `charedge generate --length 1`."""


COLUMNS: Columns[Row] = {
    "model": lambda row: row.name,
    "profile": lambda row: row.quantization,
    "interpreter": lambda row: row.interpreter,
    "bytes": lambda row: f"{row.bytes:,}",
    "nats/char": lambda row: f"{row.nats_per_character:.4f}",
    "windows": lambda row: f"{row.windows_nats_per_character:.4f}",
    "us/char": lambda row: f"{row.microseconds_per_character:.1f}",
    "invoke us": lambda row: f"{row.invoke_microseconds:.1f}",
    "start s": lambda row: f"{row.startup_seconds:.3f}",
    "python s": lambda row: f"{row.python_seconds:.3f}",
    "peak MiB": lambda row: f"{row.peak_rss_bytes / 2**20:.1f}",
}


@dataclass(frozen=True)
class Place:
    """An interpreter, a Python that has it installed, and the model files made for it."""

    python: Path
    interpreter: str
    files: list[Path]

    def sample(self, seconds: float) -> dict[Path, dict[str, float]]:
        """One sample of what varies between runs: the fields of `Row` for each file."""
        with tempfile.TemporaryDirectory() as folder:
            times = Path(folder) / "times.json"
            options = ["--interpreter", self.interpreter, "--rounds", 1, "--seconds", seconds, "--json", times]
            output(self.python, HERE / "step_loop.py", *self.files, *options)
            speeds = json.loads(times.read_text())
        nothing = cost(self.python, "-c", "pass")
        starts = {path: cost(*self._charedge("generate", path, "--length", 1)) for path in self.files}
        return {
            path: {
                "microseconds_per_character": speeds[str(path)]["loop"],
                "invoke_microseconds": speeds[str(path)]["invoke"],
                "startup_seconds": start.seconds,
                "python_seconds": nothing.seconds,
                "peak_rss_bytes": start.peak_rss_bytes,
            }
            for path, start in starts.items()
        }

    def row(self, path: Path, text: Path, samples: Sequence[dict[str, float]]) -> Row:
        """The losses of a file, and the medians of its samples."""
        manifest = read_model_file(path).manifest
        score = json.loads(output(*self._charedge("score", path, text, "--json")))
        windows = output(self.python, HERE / "windows.py", path, text, "--interpreter", self.interpreter)
        medians: dict[str, Any] = {name: statistics.median_low(sample[name] for sample in samples) for name in samples[0]}
        return Row(
            name=manifest.name,
            quantization=manifest.quantization,
            bytes=path.stat().st_size,
            interpreter=score["interpreter"],
            nats_per_character=score["nats_per_character"],
            windows_nats_per_character=float(windows),
            **medians,
        )

    def _charedge(self, *arguments: object) -> list[object]:
        return charedge(self.python, *arguments, "--interpreter", self.interpreter)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("models", nargs="+", type=Path, metavar="MODEL", help="a file, or a folder of files")
    parser.add_argument("--text", type=Path, required=True, help="text file that no model was trained on")
    parser.add_argument("--python", type=Path, help="Python of an environment with tflite-runtime")
    parser.add_argument("--rounds", type=positive, default=5)
    parser.add_argument("--seconds", type=float, default=0.2, help="seconds of each loop in each round")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()

    files = [file for model in options.models for file in (sorted_files(model) if model.is_dir() else [model])]
    for missing in (path for path in (*files, options.text) if not path.is_file()):
        parser.error(f"{missing} is not a file")
    if not files:
        parser.error(f"{options.models[0]} holds no model files: give a folder of `charedge convert --all`")
    places = [
        Place(Path(python), interpreter, [file for file in files if interpreter in interpreters_of(file)])
        for interpreter, python in {"ai-edge-litert": sys.executable, "tflite-runtime": options.python}.items()
        if python and has(python, interpreter)
    ]
    rounds = [[place.sample(options.seconds) for place in places] for _ in range(options.rounds)]  # the places take turns
    rows = [
        place.row(path, options.text, [samples[i][path] for samples in rounds])
        for i, place in enumerate(places)
        for path in place.files
    ]
    print(f"{describe_machine()['processor']}, one thread, medians of {options.rounds} rounds; {options.text.name}\n")
    print(table(COLUMNS, rows))
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")


def sorted_files(folder: Path) -> list[Path]:
    """The largest first."""
    return sorted(folder.glob("*.tflite"), key=lambda file: -file.stat().st_size)


def has(python: Path | str, interpreter: str) -> bool:
    """Whether a Python has an interpreter installed; if not, a line on stderr says so."""
    found = not subprocess.run([python, "-c", f"import {MODULES[interpreter]}"], capture_output=True, check=False).returncode
    if not found:
        print(f"{interpreter} is left out: {python} does not have it", file=sys.stderr)
    return found


def interpreters_of(file: Path) -> set[str]:
    return {interpreter.name for interpreter in read_model_file(file).manifest.interpreters}


if __name__ == "__main__":
    try:
        main()
    except CharedgeError as error:
        sys.exit(str(error))
