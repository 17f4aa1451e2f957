"""`charedge convert` and `charedge demo`. TensorFlow is imported when a command runs, not before."""

from __future__ import annotations

import json
import math
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..console import JSON, PLAIN, print_json, say
from ..runtime.errors import CharedgeError, InvalidOption
from ..runtime.files import write_atomically
from ..streams import harmless
from ..trainer.cli import RUN, require_utf8
from ..trainer.installation import require_tensorflow
from ..trainer.outputs import require_outside
from ..trainer.run import Run

if TYPE_CHECKING:
    from .build import Built

app = typer.Typer(**PLAIN)

FORMATS = ("tflite", "saved-model")

MAX_TEXT = 1000  # characters of a name: a manifest has its bounds


MEANINGLESS = {
    "--format saved-model": ("--all", "--quantization", "--tolerance", "--name", "--author", "--license", "--notes"),
    "--all": ("--output", "--quantization"),
}
"""Options that would do nothing beside another one."""


@app.command()
def convert(
    ctx: typer.Context,
    run: RUN,
    output: Annotated[
        Path | None, typer.Option(metavar="MODEL", help="The .tflite file to write, or the SavedModel's folder.")
    ] = None,
    all_into: Annotated[Path | None, typer.Option("--all", metavar="DIR", help="Write a file of every quantization here.")] = None,
    quantization: Annotated[
        str, typer.Option(metavar="float32|float16|int8|int4", help="How the weights are stored; int4 needs LiteRT.")
    ] = "int8",
    format: Annotated[
        str, typer.Option(metavar="tflite|saved-model", help="A file for the device, or a one-step generator for TensorFlow.")
    ] = "tflite",
    tolerance: Annotated[
        float | None, typer.Option(metavar="NATS", help="How much a character may lose against Keras.  [default: the profile's]")
    ] = None,
    fit_temperature: Annotated[
        bool, typer.Option("--fit-temperature", help="Divide the logits by what predicts the held-out text best.")
    ] = False,
    name: Annotated[str | None, typer.Option(help="What the model is called.  [default: the run folder's name]")] = None,
    author: Annotated[str, typer.Option(help="Who made it.")] = "unspecified",
    license: Annotated[str, typer.Option(help="Its licence, as an SPDX identifier.")] = "unspecified",
    notes: Annotated[str, typer.Option(help="What it writes and where its limits are, for people.", show_default=False)] = "",
    as_json: JSON = False,
) -> None:
    """Turn a run into one .tflite file, and verify it on every interpreter installed here."""
    if format not in FORMATS:
        raise InvalidOption(f"--format {format} is unknown: choose {' or '.join(FORMATS)}.")
    if format == "saved-model":
        _refuse_meaningless(ctx, "--format saved-model")
    if all_into is not None:
        _refuse_meaningless(ctx, "--all")
    if output is None and all_into is None:
        raise InvalidOption("give either --output MODEL or --all DIR.")
    if tolerance is not None and not (math.isfinite(tolerance) and tolerance >= 0):
        raise InvalidOption(f"--tolerance {tolerance:g} must be a number from 0 up, in nats per character.")
    for option, text in (("--name", name or ""), ("--author", author), ("--license", license), ("--notes", notes)):
        if len(text) > MAX_TEXT or not text.isprintable():
            raise InvalidOption(f"{option} must be one line of at most {MAX_TEXT} printable characters.")
    if all_into is not None and name is not None and Path(name).name != name:
        raise InvalidOption(f"--name {name} must be good for a file's name with --all: leave out the folder.")
    if output is not None:
        require_outside("--output", output, Run(run))
        _check_output(output, format)
    if all_into is not None:
        require_outside("--all", all_into, Run(run))
    require_tensorflow("convert", "convert")
    from .quantization import PROFILES

    if quantization not in PROFILES:
        raise InvalidOption(f"--quantization {quantization} is unknown: choose {', '.join(PROFILES)}.")
    if format == "saved-model":
        assert output is not None
        if output.resolve() in run.resolve().parents:  # it would be replaced as a whole
            raise InvalidOption(f"--output {output} contains the run {run}, which is read: choose another folder.")
        _write_saved_model(Run(run), output, fit_temperature, as_json)
        return
    from .convert import convert_run
    from .report import fields, table

    options = {"name": name, "author": author, "license": license, "notes": notes, "fit_temperature": fit_temperature}
    if output is not None:
        (result,) = convert_run(Run(run), [quantization], **options)
        _require_quality(result, output, tolerance)
        _write("--output", output, result.data)
        files = [(result, output)]
    else:
        assert all_into is not None
        files = _write_all(convert_run(Run(run), list(PROFILES), **options), all_into, name or run.resolve().name, tolerance)
    if as_json:
        listed = [fields(result, path) for result, path in files]
        print_json(listed[0] if output is not None else {"files": listed})
        return
    print(table(files))
    print(f"next: charedge generate {files[0][1]}" if output is not None else f"compared in {all_into}: *-comparison.png and .json")


def _refuse_meaningless(ctx: typer.Context, option: str) -> None:
    """
    Raises:
        InvalidOption: something was given that would do nothing beside this option.
    """
    for parameter in ctx.command.params:
        (name,) = parameter.opts[:1]
        if name in MEANINGLESS[option] and "COMMANDLINE" in str(ctx.get_parameter_source(str(parameter.name))):
            raise InvalidOption(f"{name} means nothing with {option}: leave one of them out.")


def _write_all(results: list[Built], folder: Path, name: str, tolerance: float | None) -> list[tuple[Built, Path]]:
    """Write a file of each quantization that is good enough, and a comparison of them.

    Raises:
        CharedgeError: the folder cannot be written, or a file would lose too much; the others are there then.
    """
    from .report import draw_comparison, fields

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CharedgeError(f"--all {folder} cannot be made ({error.strerror}): choose another folder.") from None
    files = [(result, folder / f"{name}-{result.quantization}.tflite") for result in results]
    fine, errors = [], []
    for result, path in files:
        try:
            _require_quality(result, path, tolerance)
        except CharedgeError as error:
            errors.append(error)
            continue
        _write("--all", path, result.data)
        fine.append((result, path))
    comparison = json.dumps({"files": [fields(result, path) for result, path in fine]}, indent=2)
    _write("--all", folder / f"{name}-comparison.json", f"{comparison}\n".encode())
    picture = draw_comparison(results, f"{harmless(name)}: quality against size")
    _write("--all", folder / f"{name}-comparison.png", picture)
    if errors:
        raise CharedgeError(" ".join(map(str, errors)))
    return fine


def _write_saved_model(run: Run, output: Path, fit_temperature: bool, as_json: bool) -> None:
    from .saved_model import write_saved_model

    exported = write_saved_model(run, output, say, fit_temperature)
    if as_json:
        print_json({"folder": str(output), **asdict(exported)})
        return
    print(
        f"{output}: {exported.bytes:,} bytes, a SavedModel; {exported.nats_per_character:.4f} nats/character over "
        f"{exported.characters:,} held-out characters, largest logit difference to Keras {exported.largest_logit_difference:.6f}"
    )
    print(f"next: tf.saved_model.load({str(output)!r}).generate_one_step(...), as docs/command-line.md shows")


def _require_quality(result: Built, output: Path, tolerance: float | None) -> None:
    """
    Raises:
        CharedgeError: the file loses more against Keras than is allowed.
    """
    from .quantization import PROFILES

    allowed = PROFILES[result.quantization].tolerance if tolerance is None else tolerance
    worst = result.worst
    if not worst.loss <= allowed:  # nor NaN
        raise CharedgeError(
            f"{output} was not written: it would lose {worst.loss:.4f} nats/character against Keras on {worst.interpreter}, "
            f"and {allowed:g} are allowed; choose another --quantization, or raise --tolerance."
        )


def _write(option: str, path: Path, data: bytes) -> None:
    try:
        write_atomically(path, data)
    except OSError as error:
        raise CharedgeError(f"{option} {path} cannot be written ({error.strerror}): choose another place.") from None


def _check_output(output: Path, format: str) -> None:
    """
    Raises:
        CharedgeError: nothing could be written there, which is better known before the work than after it.
    """
    if format == "saved-model":
        require_utf8(output)
    if format == "tflite" and output.is_dir():
        raise CharedgeError(f"--output {output} is a folder: give the name of a .tflite file.")
    if output.exists() and not (output.is_file() or output.is_dir()):
        raise CharedgeError(f"--output {output} is no regular file: give another name.")  # /dev/null stays
    if not output.parent.is_dir():
        raise CharedgeError(f"--output {output} is in a folder that does not exist: make {output.parent} first.")
    if not os.access(output.parent, os.W_OK):
        raise CharedgeError(f"--output {output} cannot be written, {output.parent} is read-only: choose another place.")


@app.command()
def demo(
    output: Annotated[Path, typer.Option(metavar="FOLDER", help="Where the run and the model go.")] = Path("charedge-demo"),
) -> None:
    """Train, convert and generate on Python's own documentation, in about a minute."""
    require_tensorflow("demo", "train,convert")
    from .demo import run_demo

    run_demo(output)
