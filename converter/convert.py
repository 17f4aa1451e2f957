"""`charedge.convert`: write a run's best weights as a model file, measured against the Keras model before it is written."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..runtime.errors import CharedgeError, InvalidOption
from ..runtime.manifest import LogitTemperature, RequiredInterpreter
from ..runtime.paths import StrPath, path_argument
from ..runtime.progress import Progress, no_progress
from ..runtime.text import harmless
from ..trainer.run import Run
from .arguments import check_options, check_quantization
from .build_run import build_run, require_quality
from .outputs import check_file, check_folder, write_file
from .profiles import PROFILES

if TYPE_CHECKING:
    from .build import Built
    from .verification import Measurement

MAX_FILE_NAME = 200  # bytes; file systems allow 255, the suffix `-int8-static.tflite` included


@dataclass(frozen=True)
class Conversion:
    """A model file that was written, and its measurements; `dataclasses.asdict` gives the JSON of `charedge convert`."""

    file: str
    """Path of the file."""
    bytes: int
    """Size of the file."""
    quantization: str
    interpreters: tuple[RequiredInterpreter, ...]
    """The interpreters that may run it, with the lowest version of each."""
    verified: tuple[Measurement, ...]
    """Quality and speed on each of them that is installed."""
    logit_temperature: LogitTemperature | None
    """The temperature that the logits were divided by, and what it was fitted on; None if they were not divided."""


def convert(
    run: Run | StrPath,
    output: StrPath,
    *,
    quantization: str = "int8",
    tolerance: float | None = None,
    fit_temperature: bool = False,
    logit_temperature: float | None = None,
    name: str | None = None,
    author: str = "unspecified",
    license: str = "unspecified",
    notes: str = "",
    progress: Progress = no_progress,
) -> Conversion:
    """Convert a run's best weights to one .tflite file, and measure it on the run's held-out text.

    Args:
        run: the run, or its folder.
        output: the .tflite file to write; missing parent folders are made, and an existing file is replaced atomically.
        quantization: storage of the weights: `float32`, `float16`, `int8`, `int8-static` or `int4`.
        tolerance: maximum loss of the file against the Keras model, in nats per character; by default the quantization's own.
        fit_temperature: divide the logits by the temperature that predicts the held-out text best; not with `logit_temperature`.
        logit_temperature: divide the logits by this temperature, from 0.25 to 4; by default they are not divided.
        name: the model's name, one line of at most 1000 characters; by default the run folder's.
        author: author of the model, one line.
        license: the model's licence as an SPDX identifier, one line.
        notes: what the model writes and its limits, one line.
        progress: called with reports on the characters done in each stage.

    Returns:
        The file's size, interpreters and measurements.

    Raises:
        InvalidOption: an argument has an invalid value, or `output` is in the run.
        CharedgeError: TensorFlow is not installed; `output` cannot be written; the run is damaged; or the file loses more than
            `tolerance` on an interpreter, and was not written.
    """
    run, output = Run.of("run", run), path_argument("output", output)
    check_quantization("quantization", quantization)
    check_options(tolerance, fit_temperature, logit_temperature, name, author, license, notes, progress)
    check_file("output", output, run)
    texts = {"name": name, "author": author, "license": license, "notes": notes}
    (built,) = build_run(run, [quantization], texts, fit_temperature, logit_temperature, progress)
    require_quality(built, output, tolerance)
    write_file("output", output, built.data)
    return _conversion(built, output)


def convert_all(
    run: Run | StrPath,
    folder: StrPath,
    *,
    tolerance: float | None = None,
    fit_temperature: bool = False,
    logit_temperature: float | None = None,
    name: str | None = None,
    author: str = "unspecified",
    license: str = "unspecified",
    notes: str = "",
    progress: Progress = no_progress,
) -> list[Conversion]:
    """Convert a run's best weights to a .tflite file of every quantization, and compare them side by side.

    The files are `NAME-QUANTIZATION.tflite`; the comparison is `NAME-comparison.json` and `NAME-comparison.png`.

    Args:
        run, tolerance, fit_temperature, logit_temperature, author, license, notes, progress: as for `convert`.
        folder: the folder for the files; made if it is missing.
        name: the model's name, and the start of the file names; by default the run folder's name.

    Returns:
        The files in the order of `PROFILES`, from the largest to the smallest.

    Raises:
        InvalidOption, CharedgeError: as `convert`. A file that loses too much is left out; the others are written before this is
            raised.
    """
    run, folder = Run.of("run", run), path_argument("folder", folder)
    check_options(tolerance, fit_temperature, logit_temperature, name, author, license, notes, progress)
    begin = name or run.path.resolve().name
    if Path(begin).name != begin or len(os.fsencode(begin)) > MAX_FILE_NAME:
        problem = f"{begin} must be usable as a file name: give one of at most {MAX_FILE_NAME} bytes, without a folder."
        raise InvalidOption("name", problem)
    check_folder("folder", folder, run)
    texts = {"name": name, "author": author, "license": license, "notes": notes}
    results = build_run(run, list(PROFILES), texts, fit_temperature, logit_temperature, progress)
    conversions, errors = [], []
    for built in results:
        path = folder / f"{begin}-{built.quantization}.tflite"
        try:
            require_quality(built, path, tolerance)
        except CharedgeError as error:
            errors.append(str(error))
            continue
        write_file("folder", path, built.data)
        conversions.append(_conversion(built, path))
    _write_comparison(folder, begin, results, conversions)
    if errors:
        raise CharedgeError(" ".join(errors))
    return conversions


def _conversion(built: Built, path: Path) -> Conversion:
    return Conversion(
        file=str(path),
        bytes=len(built.data),
        quantization=built.quantization,
        interpreters=tuple(built.interpreters),
        verified=tuple(built.measurements),
        logit_temperature=built.logit_temperature,
    )


def _write_comparison(folder: Path, name: str, results: Sequence[Built], conversions: Sequence[Conversion]) -> None:
    """Write a list of the files as JSON, and a plot of all that were built.

    Raises:
        CharedgeError: they cannot be written.
    """
    from .comparison import draw_comparison

    listed = json.dumps({"files": [asdict(conversion) for conversion in conversions]}, indent=2)
    write_file("folder", folder / f"{name}-comparison.json", f"{listed}\n".encode())
    write_file("folder", folder / f"{name}-comparison.png", draw_comparison(results, f"{harmless(name)}: quality against size"))
