"""`charedge.convert`: a run's best weights as a file that a device reads, measured against the Keras model before it is written.

TensorFlow is imported when a function is called, not before.
"""

from __future__ import annotations

import io
import json
import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING

from ..runtime.errors import CharedgeError, InvalidOption
from ..runtime.manifest import RequiredInterpreter
from ..runtime.model_file import parse_model_file
from ..runtime.progress import Progress, Report, no_progress
from ..runtime.text import harmless
from ..trainer.installation import require_installed, require_tensorflow
from ..trainer.run import Run
from .html import build_page, check_page
from .outputs import check_file, check_folder, check_saved_model, write_file
from .profiles import PROFILES

if TYPE_CHECKING:
    from .build import Built
    from .saved_model import Exported
    from .verification import Measurement

VERIFIED_CHARACTERS = 20_000
MAX_TEXT = 1000  # characters of a name: a manifest has its bounds
MAX_FILE_NAME = 200  # bytes; with `-int8.tflite` behind it a file system still takes it


@dataclass(frozen=True)
class Conversion:
    """A model file that was written, and what was measured; `dataclasses.asdict` gives the JSON of `charedge convert`."""

    file: str
    """Its path."""
    bytes: int
    """Its size."""
    quantization: str
    interpreters: tuple[RequiredInterpreter, ...]
    """The interpreters that may run it, with the lowest version of each."""
    verified: tuple[Measurement, ...]
    """Quality and speed on each of them that is installed here."""


@dataclass(frozen=True)
class Page:
    """A web page that was written, and what was measured of the model in it."""

    file: str
    """Its path."""
    bytes: int
    """Its size."""
    model_bytes: int
    """The size of the model file in it, which is there in base64."""
    quantization: str
    verified: tuple[Measurement, ...]
    """Quality and speed of the model file on each interpreter that is installed here; the page has its own arithmetic."""


def convert(
    run: Run | str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    quantization: str = "int8",
    tolerance: float | None = None,
    fit_temperature: bool = False,
    name: str | None = None,
    author: str = "unspecified",
    license: str = "unspecified",
    notes: str = "",
    progress: Progress = no_progress,
) -> Conversion:
    """Convert a run's best weights to one .tflite file, and measure it on the run's held-out text.

    Args:
        run: the run, or its folder.
        output: the .tflite file to write; missing parent folders are made, and a file that is there is replaced as a whole.
        quantization: how the weights are stored: `float32`, `float16`, `int8`, `int8-static` or `int4`.
        tolerance: nats per character that the file may lose against the Keras model; by default the quantization's own.
        fit_temperature: divide the logits by the temperature that predicts the held-out text best.
        name: the model's name, one line of at most 1000 characters; by default the run folder's.
        author: who made the model, one line.
        license: the model's licence as an SPDX identifier, one line.
        notes: what the model writes and its limits, one line.
        progress: called with reports, characters done of all in each stage.

    Returns:
        The file's size, interpreters and measurements.

    Raises:
        InvalidOption: an argument has a value that it cannot have, or `output` is in the run.
        CharedgeError: TensorFlow is not installed; `output` cannot be written; the run is damaged; or the file would lose more
            than `tolerance` on an interpreter, and was not written.
    """
    run, output = _run(run), _path("output", output)
    _check_choice("quantization", quantization)
    _check_options(tolerance, fit_temperature, name, author, license, notes, progress)
    check_file("output", output, run)
    texts = {"name": name, "author": author, "license": license, "notes": notes}
    (built,) = _build(run, [quantization], texts, fit_temperature, progress)
    _require_quality(built, output, tolerance)
    write_file("output", output, built.data)
    return _conversion(built, output)


def convert_all(
    run: Run | str | os.PathLike[str],
    folder: str | os.PathLike[str],
    *,
    tolerance: float | None = None,
    fit_temperature: bool = False,
    name: str | None = None,
    author: str = "unspecified",
    license: str = "unspecified",
    notes: str = "",
    progress: Progress = no_progress,
) -> list[Conversion]:
    """Convert a run's best weights to a .tflite file of every quantization, and compare them side by side.

    The files are `NAME-QUANTIZATION.tflite`; the comparison is `NAME-comparison.json` and `NAME-comparison.png`.

    Args:
        run, tolerance, fit_temperature, author, license, notes, progress: as for `convert`.
        folder: where the files are written; made if it is missing.
        name: the model's name, and the beginning of the files' names; by default the run folder's.

    Returns:
        The files in the order of `PROFILES`, from the largest to the smallest.

    Raises:
        InvalidOption, CharedgeError: as `convert`. If a file would lose too much, it is left out and the others are written before
            this is raised.
    """
    run, folder = _run(run), _path("folder", folder)
    _check_options(tolerance, fit_temperature, name, author, license, notes, progress)
    if name is not None and (Path(name).name != name or len(os.fsencode(name)) > MAX_FILE_NAME):
        raise InvalidOption("name", f"{name} must be usable as a file name: at most {MAX_FILE_NAME} bytes, without a folder.")
    check_folder("folder", folder, run)
    texts = {"name": name, "author": author, "license": license, "notes": notes}
    results = _build(run, list(PROFILES), texts, fit_temperature, progress)
    begin = name or run.path.resolve().name
    conversions, errors = [], []
    for built in results:
        path = folder / f"{begin}-{built.quantization}.tflite"
        try:
            _require_quality(built, path, tolerance)
        except CharedgeError as error:
            errors.append(str(error))
            continue
        write_file("folder", path, built.data)
        conversions.append(_conversion(built, path))
    _write_comparison(folder, begin, results, conversions)
    if errors:
        raise CharedgeError(" ".join(errors))
    return conversions


def export_saved_model(
    run: Run | str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    fit_temperature: bool = False,
    progress: Progress = no_progress,
) -> Exported:
    """Write a run's best weights as a SavedModel: the one-step generator of TensorFlow's text generation tutorial, in float32.

    Args:
        run: the run, or its folder.
        output: the folder to write; missing parent folders are made, and a SavedModel that is there is replaced as a whole.
        fit_temperature: divide the logits by the temperature that predicts the held-out text best.
        progress: called with reports, characters done of all in each stage.

    Returns:
        The SavedModel's size, and what was measured against the Keras model.

    Raises:
        InvalidOption: an argument has a value that it cannot have, or `output` is in the run or has the run in it.
        CharedgeError: TensorFlow is not installed; `output` holds something else or cannot be written; the run is damaged; or
            the SavedModel gives other logits than the Keras model, and was not put in place.
    """
    run, output = _run(run), _path("output", output)
    _check_call(fit_temperature, progress)
    check_saved_model("output", output, run)
    run.config()
    require_tensorflow("convert", "convert")
    from .saved_model import write_saved_model

    return write_saved_model(run, output, fit_temperature, progress)


def export_html(
    run: Run | str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    quantization: str = "int8",
    tolerance: float | None = None,
    fit_temperature: bool = False,
    name: str | None = None,
    author: str = "unspecified",
    license: str = "unspecified",
    notes: str = "",
    progress: Progress = no_progress,
) -> Page:
    """Convert a run's best weights to a web page: one HTML file that writes and scores text in a browser, without a network.

    Args:
        run, tolerance, fit_temperature, name, author, license, notes, progress: as for `convert`.
        output: the .html file to write; missing parent folders are made, and a file that is there is replaced as a whole.
        quantization: how the weights are stored: `float32`, `float16`, `int8` or `int8-static`.

    Returns:
        The page's size, and the measurements of the model file in it.

    Raises:
        InvalidOption: an argument has a value that it cannot have, or `output` is in the run or is not called .html.
        CharedgeError: as `convert`; or the page would be larger than 32 MB.
    """
    run, output = _run(run), _path("output", output)
    _check_choice("quantization", quantization)
    _check_options(tolerance, fit_temperature, name, author, license, notes, progress)
    check_file("output", output, run, ".html")
    check_page(quantization, output)
    texts = {"name": name, "author": author, "license": license, "notes": notes}
    (built,) = _build(run, [quantization], texts, fit_temperature, progress)
    _require_quality(built, output, tolerance)
    page = build_page(parse_model_file(io.BytesIO(built.data), output), output)
    write_file("output", output, page)
    return Page(str(output), len(page), len(built.data), quantization, tuple(built.measurements))


def _run(run: Run | str | os.PathLike[str]) -> Run:
    return run if isinstance(run, Run) else Run(_path("run", run, "a Run or the path of a run folder"))


def _path(field: str, value: str | os.PathLike[str], expected: str = "a path") -> Path:
    """
    Raises:
        InvalidOption: the value of an argument is not a path.
    """
    path = os.fspath(value) if isinstance(value, (str, os.PathLike)) else None
    _require(isinstance(path, str) and path != "" and "\0" not in path, field, value, expected)
    return Path(value)


def _check_choice(field: str, quantization: str) -> None:
    if not isinstance(quantization, str) or quantization not in PROFILES:
        raise InvalidOption(field, f"{quantization} is unknown: choose {', '.join(PROFILES)}.")


def _check_options(
    tolerance: float | None,
    fit_temperature: bool,
    name: str | None,
    author: str,
    license: str,
    notes: str,
    progress: Progress,
) -> None:
    """
    Raises:
        InvalidOption: an argument has a value that it cannot have.
    """
    number = isinstance(tolerance, Real) and not isinstance(tolerance, bool) and math.isfinite(tolerance) and tolerance >= 0
    _require(tolerance is None or number, "tolerance", tolerance, "a number from 0 up, in nats per character")
    for field, text in (("name", "" if name is None else name), ("author", author), ("license", license), ("notes", notes)):
        if not isinstance(text, str) or len(text) > MAX_TEXT or not text.isprintable():
            raise InvalidOption(field, f"must be one line of at most {MAX_TEXT} printable characters.")
    _check_call(fit_temperature, progress)


def _check_call(fit_temperature: bool, progress: Progress) -> None:
    _require(isinstance(fit_temperature, bool), "fit_temperature", fit_temperature, "True or False")
    _require(callable(progress), "progress", progress, "a function of one Report")


def _require(fine: bool, field: str, value: object, expected: str) -> None:
    if not fine:
        raise InvalidOption(field, f"{value!r} must be {expected}.")


def _build(run: Run, quantizations: Sequence[str], texts: dict[str, str | None], fit: bool, progress: Progress) -> list[Built]:
    """Read a run with Keras, and build and measure its files.

    Args:
        run: the run.
        quantizations: names in `PROFILES`.
        texts: `name`, `author`, `license` and `notes`.
        fit: whether the logits are divided by a fitted temperature.
        progress: called with reports.

    Raises:
        CharedgeError: TensorFlow is not installed, the run is damaged or its parts disagree, or no interpreter is installed.
    """
    require_installed("convert", "convert")
    config, vocabulary = run.config(), run.vocabulary()
    progress(Report("converting", message=f"converting {run.path} to {', '.join(quantizations)}"))
    require_tensorflow("convert", "convert")
    from ..trainer.accelerators import hide_gpus
    from ..trainer.fast_recurrence import FAST_LAYERS
    from ..trainer.logits import read_text
    from ..trainer.model import load_model
    from .build import build_model_files
    from .description import Description
    from .read_run import calibration_ids, held_out_ids, read_weights, start_text, training_record
    from .temperature import fit_temperature

    hide_gpus()
    model = load_model(run, FAST_LAYERS)
    temperature = fit_temperature(model, run, progress) if fit else None
    held_out = held_out_ids(run, VERIFIED_CHARACTERS)
    # Weights that were trained to be rounded lie where they should: what GPTQ does for others makes them worse.
    gptq = not config.quantization_aware
    calibrated = "int8-static" in quantizations or ("int4" in quantizations and gptq)
    notes = {"notes": texts["notes"]} if texts["notes"] else {}
    description = Description(
        name=texts["name"] or os.fsencode(run.path.resolve().name).decode(errors="replace"),
        author=texts["author"] or "",
        license=texts["license"] or "",
        notes=texts["notes"] or "",
        created=config.ended or "",
        normalization=config.normalization,
        unknown=config.unknown,
        start_text=start_text(run),
        training={**notes, **training_record(run, config, temperature)},
    )
    return build_model_files(
        read_weights(model, config),
        vocabulary,
        description,
        quantizations,
        held_out,
        reference=read_text(model, held_out),
        calibration=calibration_ids(run) if calibrated else None,
        gptq=gptq,
        progress=progress,
    )


def _require_quality(built: Built, output: Path, tolerance: float | None) -> None:
    """
    Raises:
        CharedgeError: the file loses more against Keras than is allowed.
    """
    allowed = PROFILES[built.quantization].tolerance if tolerance is None else tolerance
    worst = built.worst
    if not worst.loss <= allowed:  # nor NaN
        raise CharedgeError(
            f"{output} was not written: it would lose {worst.loss:.4f} nats/character against Keras on {worst.interpreter}, "
            f"and {allowed:g} are allowed; choose another `quantization`, or raise `tolerance`."
        )


def _conversion(built: Built, path: Path) -> Conversion:
    return Conversion(
        file=str(path),
        bytes=len(built.data),
        quantization=built.quantization,
        interpreters=tuple(built.interpreters),
        verified=tuple(built.measurements),
    )


def _write_comparison(folder: Path, name: str, results: Sequence[Built], conversions: Sequence[Conversion]) -> None:
    """The files that were written as JSON, and a picture of all that were built.

    Raises:
        CharedgeError: they cannot be written.
    """
    from .comparison import draw_comparison

    listed = json.dumps({"files": [asdict(conversion) for conversion in conversions]}, indent=2)
    write_file("folder", folder / f"{name}-comparison.json", f"{listed}\n".encode())
    write_file("folder", folder / f"{name}-comparison.png", draw_comparison(results, f"{harmless(name)}: quality against size"))
