"""The other formats that a run can be exported to: a SavedModel, a web page, C source.

TensorFlow is imported when a function is called.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..runtime.errors import CharedgeError
from ..runtime.manifest import LogitTemperature
from ..runtime.model_file import ModelFile, parse_model_file
from ..runtime.paths import StrPath, path_argument
from ..runtime.progress import Progress, no_progress
from ..trainer.config import GATES
from ..trainer.installation import require_installed, require_tensorflow
from ..trainer.run import Run
from .arguments import check_call, check_options, check_quantization, require
from .build_run import build_run, require_quality
from .c_array import PROFILE, CArray, c_source, flash_bytes, require_fits, require_header_name, require_own
from .c_step import step_files
from .html import build_page, check_page
from .outputs import check_file, check_saved_model, write_file, write_files

if TYPE_CHECKING:
    from .build import Built
    from .saved_model import Exported
    from .verification import Measurement


@dataclass(frozen=True)
class Page:
    """A web page that was written, and the measurements of the model in it."""

    file: str
    """Path of the page."""
    bytes: int
    """Size of the page."""
    model_bytes: int
    """The size of the model file in it, which is there in base64."""
    quantization: str
    verified: tuple[Measurement, ...]
    """Quality and speed of the model file on each interpreter that is installed here; the page has its own arithmetic."""
    logit_temperature: LogitTemperature | None
    """The temperature that the logits were divided by, and what it was fitted on; None if they were not divided."""


def export_saved_model(
    run: Run | StrPath,
    output: StrPath,
    *,
    fit_temperature: bool = False,
    logit_temperature: float | None = None,
    progress: Progress = no_progress,
) -> Exported:
    """Write a run's best weights as a SavedModel: the one-step generator of TensorFlow's text generation tutorial, in float32.

    Args:
        run: the run, or its folder.
        output: the folder to write; missing parent folders are made, and an existing SavedModel is replaced as a whole.
        fit_temperature: divide the logits by the temperature that predicts the held-out text best; not with `logit_temperature`.
        logit_temperature: divide the logits by this temperature, from 0.25 to 4; by default they are not divided.
        progress: called with reports on the characters done in each stage.

    Returns:
        The SavedModel's size, and its measurements against the Keras model.

    Raises:
        InvalidOption: an argument has an invalid value, or `output` is in the run or contains the run.
        CharedgeError: TensorFlow is not installed; `output` holds something else or cannot be written; the run is damaged; or
            the SavedModel's logits differ from the Keras model's, and it was not put in place.
    """
    run, output = Run.of("run", run), path_argument("output", output)
    check_call(fit_temperature, logit_temperature, progress)
    check_saved_model("output", output, run)
    run.config()
    require_tensorflow("convert", "convert")
    from .saved_model import write_saved_model

    return write_saved_model(run, output, fit_temperature, logit_temperature, progress)


def export_html(
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
) -> Page:
    """Convert a run's best weights to a web page: one HTML file that writes and scores text in a browser, without a network.

    Args:
        run, tolerance, fit_temperature, logit_temperature, name, author, license, notes, progress: as for `convert`.
        output: the .html file to write; missing parent folders are made, and a file that is there is replaced as a whole.
        quantization: how the weights are stored: `float32`, `float16`, `int8` or `int8-static`.

    Returns:
        The page's size, and the measurements of the model file in it.

    Raises:
        InvalidOption: an argument has a value that it cannot have, or `output` is in the run or is not called .html.
        CharedgeError: as `convert`; or the page would be larger than 32 MB.
    """
    run, output = Run.of("run", run), path_argument("output", output)
    check_quantization("quantization", quantization)
    check_options(tolerance, fit_temperature, logit_temperature, name, author, license, notes, progress)
    check_file("output", output, run, ".html")
    check_page(quantization, output)
    texts = {"name": name, "author": author, "license": license, "notes": notes}
    (built,) = build_run(run, [quantization], texts, fit_temperature, logit_temperature, progress)
    require_quality(built, output, tolerance)
    page = build_page(parse_model_file(io.BytesIO(built.data), output), output)
    write_file("output", output, page)
    return Page(str(output), len(page), len(built.data), quantization, tuple(built.measurements), built.logit_temperature)


def export_c_array(
    run: Run | StrPath,
    output: StrPath,
    *,
    tolerance: float | None = None,
    fit_temperature: bool = False,
    logit_temperature: float | None = None,
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
        run, tolerance, fit_temperature, logit_temperature, name, author, license, notes, progress: as for `convert`.
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
    check_options(tolerance, fit_temperature, logit_temperature, name, author, license, notes, progress)
    require(isinstance(step, bool), "step", step, "True or False")
    require_header_name("output", output)
    check_file("output", output, run)
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
    (built,) = build_run(run, [PROFILE], texts, fit_temperature, logit_temperature, progress)
    require_quality(built, output, tolerance)
    file = parse_model_file(io.BytesIO(built.data), output)
    require_fits(output, len(file.flatbuffer))
    header_text, source_text = c_source(file, output.stem)
    write_files("output", output.parent, {output.name: header_text.encode(), source.name: source_text.encode(), **beside})
    return _c_array(built, file, output, source)


def _c_array(built: Built, file: ModelFile, header: Path, source: Path) -> CArray:
    micro = file.manifest.microcontroller
    arena = None if micro is None else micro.arena_bytes
    return CArray(
        str(header), str(source), built.quantization, flash_bytes(file), arena, tuple(built.measurements), built.logit_temperature
    )


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
