"""`charedge.convert`: write a run's best weights as a model file, measured against the Keras model before it is written.

TensorFlow is imported when a function is called.
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
from ..runtime.model_file import ModelFile, parse_model_file
from ..runtime.paths import StrPath, path_argument
from ..runtime.progress import Progress, Report, no_progress
from ..runtime.text import harmless
from ..trainer.config import GATES
from ..trainer.installation import require_installed, require_tensorflow
from ..trainer.run import Run
from .c_array import PROFILE, CArray, c_source, flash_bytes, require_fits, require_header_name, require_own
from .c_step import step_files
from .html import build_page, check_page
from .outputs import check_file, check_folder, check_saved_model, write_file, write_files
from .profiles import PROFILES

if TYPE_CHECKING:
    from .build import Built
    from .saved_model import Exported
    from .verification import Measurement

VERIFIED_CHARACTERS = 20_000
MAX_TEXT = 1000  # characters of a name: the manifest is limited in size
MAX_FILE_NAME = 200  # bytes; file systems allow 255, the suffix `-int8.tflite` included


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
    run: Run | StrPath,
    output: StrPath,
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
        output: the .tflite file to write; missing parent folders are made, and an existing file is replaced atomically.
        quantization: storage of the weights: `float32`, `float16`, `int8`, `int8-static` or `int4`.
        tolerance: maximum loss of the file against the Keras model, in nats per character; by default the quantization's own.
        fit_temperature: divide the logits by the temperature that predicts the held-out text best.
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
    _check_choice("quantization", quantization)
    _check_options(tolerance, fit_temperature, name, author, license, notes, progress)
    check_file("output", output, run)
    texts = {"name": name, "author": author, "license": license, "notes": notes}
    (built,) = _build(run, [quantization], texts, fit_temperature, progress)
    _require_quality(built, output, tolerance)
    write_file("output", output, built.data)
    return _conversion(built, output)


def convert_all(
    run: Run | StrPath,
    folder: StrPath,
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
        folder: the folder for the files; made if it is missing.
        name: the model's name, and the start of the file names; by default the run folder's name.

    Returns:
        The files in the order of `PROFILES`, from the largest to the smallest.

    Raises:
        InvalidOption, CharedgeError: as `convert`. A file that loses too much is left out; the others are written before this is
            raised.
    """
    run, folder = Run.of("run", run), path_argument("folder", folder)
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
    run: Run | StrPath,
    output: StrPath,
    *,
    fit_temperature: bool = False,
    progress: Progress = no_progress,
) -> Exported:
    """Write a run's best weights as a SavedModel: the one-step generator of TensorFlow's text generation tutorial, in float32.

    Args:
        run: the run, or its folder.
        output: the folder to write; missing parent folders are made, and an existing SavedModel is replaced as a whole.
        fit_temperature: divide the logits by the temperature that predicts the held-out text best.
        progress: called with reports on the characters done in each stage.

    Returns:
        The SavedModel's size, and its measurements against the Keras model.

    Raises:
        InvalidOption: an argument has an invalid value, or `output` is in the run or contains the run.
        CharedgeError: TensorFlow is not installed; `output` holds something else or cannot be written; the run is damaged; or
            the SavedModel's logits differ from the Keras model's, and it was not put in place.
    """
    run, output = Run.of("run", run), path_argument("output", output)
    _check_call(fit_temperature, progress)
    check_saved_model("output", output, run)
    run.config()
    require_tensorflow("convert", "convert")
    from .saved_model import write_saved_model

    return write_saved_model(run, output, fit_temperature, progress)


def export_html(
    run: Run | StrPath,
    output: StrPath,
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
    run, output = Run.of("run", run), path_argument("output", output)
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


def export_c_array(
    run: Run | StrPath,
    output: StrPath,
    *,
    tolerance: float | None = None,
    fit_temperature: bool = False,
    name: str | None = None,
    author: str = "unspecified",
    license: str = "unspecified",
    notes: str = "",
    step: bool = False,
    progress: Progress = no_progress,
) -> CArray:
    """Convert a run's best weights to C source for microcontrollers: a header, and the constants in a .c file beside it.

    The model is that of `quantization="int8-static"`, measured as `convert` measures it. It runs in TensorFlow Lite Micro, or
    without it by the step in C that is written on request.

    Args:
        run, tolerance, fit_temperature, name, author, license, notes, progress: as for `convert`.
        output: the header to write, a C identifier and `.h`; all names in it begin with that identifier. Missing parent folders
            are made. A header that is there is replaced as a whole, and so is a .c file that charedge wrote.
        step: write charedge_step.h and charedge_step.c beside it, which run the model, and main.c, an example, if there is none.
            TensorFlow Lite Micro need not be installed.

    Returns:
        The files, what they take of a microcontroller's memory, and the measurements.

    Raises:
        InvalidOption: an argument has a value that it cannot have, or `output` is in the run.
        CharedgeError: as `convert`; or the model is too large for a microcontroller's flash, tflite-micro is not installed, or the
            .c file beside `output` is not charedge's.
    """
    run, output = Run.of("run", run), path_argument("output", output)
    _check_options(tolerance, fit_temperature, name, author, license, notes, progress)
    _require(isinstance(step, bool), "step", step, "True or False")
    require_header_name("output", output)
    source = output.with_suffix(".c")
    beside = step_files("output", output) if step else {}
    for path in (output, source, *map(output.with_name, beside)):
        check_file("output", path, run)
    require_own("output", source)
    require_fits(output, _weight_bytes(run))
    require_installed("convert", "convert")
    if not step:
        _require_micro(output)
    texts = {"name": name, "author": author, "license": license, "notes": notes}
    (built,) = _build(run, [PROFILE], texts, fit_temperature, progress)
    _require_quality(built, output, tolerance)
    file = parse_model_file(io.BytesIO(built.data), output)
    require_fits(output, len(file.flatbuffer))
    header_text, source_text = c_source(file, output.stem)
    write_files("output", output.parent, {output.name: header_text.encode(), source.name: source_text.encode(), **beside})
    return _c_array(built, file, output, source)


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
        InvalidOption: an argument has an invalid value.
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
        fit: whether to divide the logits by a fitted temperature.
        progress: called with reports.

    Raises:
        CharedgeError: TensorFlow is not installed, the run is damaged or its files do not match, or no interpreter is installed.
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
    # GPTQ makes weights worse that were trained to be rounded: they already are near the values that int4 can store.
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
        CharedgeError: the file loses more than the tolerance against Keras.
    """
    allowed = PROFILES[built.quantization].tolerance if tolerance is None else tolerance
    worst = built.worst
    if not worst.loss <= allowed:  # nor NaN
        raise CharedgeError(
            f"{output} was not written: it would lose {worst.loss:.4f} nats per character against Keras on {worst.interpreter}, "
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


def _c_array(built: Built, file: ModelFile, header: Path, source: Path) -> CArray:
    micro = file.manifest.microcontroller
    arena = None if micro is None else micro.arena_bytes
    return CArray(str(header), str(source), built.quantization, flash_bytes(file), arena, tuple(built.measurements))


def _weight_bytes(run: Run) -> int:
    """The 8-bit weights of a run's network, without reading them: nearly all of its model file."""
    config, tokens = run.config(), len(run.vocabulary())
    columns = GATES[config.cell] * config.units
    table = min(tokens * columns, (tokens + columns) * config.embedding_dim)  # folded, or the embedding and the first input matrix
    return table + (2 * config.layers - 1) * config.units * columns + config.units * tokens


def _require_micro(output: Path) -> None:
    """
    Raises:
        CharedgeError: TensorFlow Lite Micro is not installed, so that nothing says how much memory a model needs.
    """
    from .microcontroller import NOT_INSTALLED, installed_micro

    if installed_micro() is None:
        raise CharedgeError(f"{output} was not written: {NOT_INSTALLED}")


def _write_comparison(folder: Path, name: str, results: Sequence[Built], conversions: Sequence[Conversion]) -> None:
    """Write a list of the files as JSON, and a plot of all that were built.

    Raises:
        CharedgeError: they cannot be written.
    """
    from .comparison import draw_comparison

    listed = json.dumps({"files": [asdict(conversion) for conversion in conversions]}, indent=2)
    write_file("folder", folder / f"{name}-comparison.json", f"{listed}\n".encode())
    write_file("folder", folder / f"{name}-comparison.png", draw_comparison(results, f"{harmless(name)}: quality against size"))
