"""`charedge convert`: its options, and what it prints. TensorFlow is imported when the command runs."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from ..console import JSON, PLAIN, print_json, shown_loss
from ..display import Display
from ..runtime.errors import InvalidOption
from ..runtime.manifest import LogitTemperature
from .c_array import PROFILE, CArray
from .convert import Conversion, convert_all
from .convert import convert as convert_run
from .exports import Page, export_c_array, export_html, export_saved_model
from .profiles import PROFILES

app = typer.Typer(**PLAIN)

FORMATS = ("tflite", "saved-model", "html", "c", "c-array")
MEANINGLESS = {
    "--format c": ("folder",),
    "--format c-array": ("folder",),
    "--format saved-model": ("folder", "quantization", "tolerance", "name", "author", "license", "notes"),
    "--format html": ("folder",),
    "--all": ("output", "quantization"),
}
"""Arguments that have no effect together with an option."""
HEADINGS = ("", "nats/char", "vs Keras", "KL div.", "top-1", "logits", "us/char")
ROW = "{:<23.23}  {:>9}  {:>8}  {:>7}  {:>7}  {:>6}  {:>7}"  # 79 columns


@app.command()
def convert(
    ctx: typer.Context,
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder made by `charedge train`.", show_default=False)],
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="MODEL", help="The .tflite, .html or .h file to write, or the folder of the SavedModel; required without --all."
        ),
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option("--all", metavar="DIR", help="Write a file of every quantization to DIR, and a comparison.  [default: none]"),
    ] = None,
    quantization: Annotated[
        str,
        typer.Option(
            metavar="|".join(PROFILES),
            help="Storage of the weights; int8-static also runs on microcontrollers, int4 on LiteRT only.",
        ),
    ] = "int8",
    format: Annotated[
        str,
        typer.Option(
            metavar="|".join(FORMATS),
            help="Model file for devices, SavedModel for TensorFlow, page for browsers, C source for microcontrollers that runs by "
            "itself, or the constants alone for TensorFlow Lite Micro.",
        ),
    ] = "tflite",
    tolerance: Annotated[
        float | None,
        typer.Option(
            metavar="NATS",
            help="Maximum loss of the file against the Keras model, in nats per character.  [default: "
            + ", ".join(f"{name} {profile.tolerance:g}" for name, profile in PROFILES.items())
            + "]",
        ),
    ] = None,
    fit_temperature: Annotated[
        bool, typer.Option("--fit-temperature", help="Divide the logits by the temperature that predicts the held-out text best.")
    ] = False,
    logit_temperature: Annotated[
        float | None,
        typer.Option(
            metavar="VALUE",
            help="Divide the logits by this temperature, from 0.25 to 4; not with --fit-temperature.  [default: not divided]",
            show_default=False,
        ),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the model.  [default: the name of the run folder]")] = None,
    author: Annotated[str, typer.Option(help="Author of the model.")] = "unspecified",
    license: Annotated[str, typer.Option(help="Licence of the model as an SPDX identifier.")] = "unspecified",
    notes: Annotated[
        str, typer.Option(help="What the model writes and its limits, in one line.  [default: none]", show_default=False)
    ] = "",
    as_json: JSON = False,
) -> None:
    """Convert a run to one .tflite file, and verify it on every installed interpreter."""
    if format not in FORMATS:
        raise InvalidOption("format", f"{format} is unknown: choose {', '.join(FORMATS)}.")
    if format == "tflite" and output is not None and output.suffix in (".html", ".h"):
        other = "html" if output.suffix == ".html" else "c"
        raise InvalidOption("output", f"{output} is not the name of a .tflite file: add `format` {other}, or end it with .tflite.")
    if format != "tflite":
        _refuse_meaningless(ctx, f"--format {format}")
    if format in ("c", "c-array") and _given(ctx, "quantization") and quantization != PROFILE:
        problem = f"{quantization} cannot be chosen: --format {format} always writes {PROFILE}; leave it out."
        raise InvalidOption("quantization", problem)
    if folder is not None:
        _refuse_meaningless(ctx, "--all")
    if output is None and folder is None:
        raise InvalidOption("output", "is missing: give either --output MODEL or --all DIR.")
    texts = {"name": name, "author": author, "license": license, "notes": notes}
    temperatures: dict[str, Any] = {"fit_temperature": fit_temperature, "logit_temperature": logit_temperature}
    options: dict[str, Any] = {"tolerance": tolerance, **temperatures, **texts}
    with Display() as display:
        if folder is not None:
            result = convert_all(run, folder, **options, progress=display)
        elif format == "saved-model":
            result = export_saved_model(run, cast(Path, output), **temperatures, progress=display)
        elif format in ("c", "c-array"):
            result = export_c_array(run, cast(Path, output), **options, step=format == "c", progress=display)
        elif format == "html":
            result = export_html(run, cast(Path, output), quantization=quantization, **options, progress=display)
        else:
            result = convert_run(run, cast(Path, output), quantization=quantization, **options, progress=display)
    if as_json:
        print_json({"files": [asdict(conversion) for conversion in result]} if isinstance(result, list) else asdict(result))
    elif isinstance(result, list):
        print(_table(run, result))
        print(f"compared in {folder}: *-comparison.png and *-comparison.json")
    elif isinstance(result, Conversion):
        print(_table(run, [result]))
        print(f"next: charedge generate {shlex.quote(result.file)}")
    elif isinstance(result, CArray):
        print(_table(run, [result]))
        print(
            _compile_command(result) if format == "c" else "next: compile both with the program that docs/microcontrollers.md shows"
        )
    elif isinstance(result, Page):
        print(_table(run, [result]))
        print(f"next: open {shlex.quote(result.file)} in a browser")
    else:
        print(
            f"{result.folder}: a SavedModel of {result.bytes:,} bytes, largest logit difference to Keras "
            f"{result.largest_logit_difference:.6f}"
        )
        measured = f"{shown_loss(result.nats_per_character)} {_over(result.characters, run)}"
        print(*(_cross_validated(result.logit_temperature) or [measured]))
        print(f"next: tf.saved_model.load({result.folder!r}).generate_one_step(...), as docs/command-line.md shows")


def _refuse_meaningless(ctx: typer.Context, option: str) -> None:
    """Refuse arguments that have no effect together with an option.

    Raises:
        InvalidOption: one was given.
    """
    for name in MEANINGLESS[option]:
        if _given(ctx, name):
            raise InvalidOption(name, f"has no effect with {option}: leave one of them out.")


def _given(ctx: typer.Context, name: str) -> bool:
    return "COMMANDLINE" in str(ctx.get_parameter_source(name))


def _title(conversion: Conversion | CArray | Page) -> str:
    """A file's name and size; of C source, what it takes of a microcontroller."""
    if isinstance(conversion, (Conversion, Page)):
        return f"{Path(conversion.file).name}: {conversion.quantization}, {conversion.bytes:,} bytes"
    names = f"{Path(conversion.header).name}, {Path(conversion.source).name}"
    arena = "" if conversion.arena_bytes is None else f", {conversion.arena_bytes:,} of arena"
    return f"{names}: {conversion.quantization}, {conversion.flash_bytes:,} bytes of flash{arena}"


def _compile_command(result: CArray) -> str:
    """What to type next, with which the example writes text on this machine."""
    header = Path(result.header)
    folder, name, example = shlex.quote(str(header.parent)), header.stem, header.with_name("main.c")
    if f'#include "{header.name}"' not in example.read_text(encoding="utf-8", errors="replace"):
        return f"next: {example} was there before and is kept; include {header.name} in it, or move it away and convert again"
    return f"next: cd {folder} && gcc -std=c99 -O2 main.c {name}.c charedge_step.c -o {name} && ./{name}"


def _over(characters: int, run: Path) -> str:
    """The text over which a conversion measured its losses."""
    return f"over the first {characters:,} held-out characters of {run}, one stream with the state carried"


def _cross_validated(temperature: LogitTemperature | None) -> list[str]:
    """If the temperature was fitted on the text that the file was measured on: the loss on text that it was not fitted on."""
    if temperature is None or temperature.fit is None or not temperature.fitted_on_verified:
        return []
    fit = temperature.fit
    return [
        f"Keras, each half of the first {fit.characters:,} held-out characters with the temperature fitted on the other half: "
        f"{shown_loss(fit.cross_validated_nats_per_character)}"
    ]


def _table(run: Path, conversions: Sequence[Conversion | CArray | Page]) -> str:
    """The table: the text measured on; a line for Keras; for each file its title, and a line for each interpreter."""
    measured, crossed = conversions[0].verified[0], _cross_validated(conversions[0].logit_temperature)

    def shown(nats: float) -> str:
        return "fitted" if crossed else f"{nats:.4f}"

    lines = [
        f"nats/char: nats per character {_over(measured.characters, run)}",
        *(
            ["fitted: the temperature was fitted on this text, too, so only the differences from Keras are results"]
            if crossed
            else []
        ),
        ROW.format(*HEADINGS),
        ROW.format("Keras", shown(measured.reference_nats_per_character), *[""] * 5),
    ]
    for conversion in conversions:
        lines.append(_title(conversion))
        lines += [
            ROW.format(
                f"  {measured.interpreter} {measured.version}",
                shown(measured.nats_per_character),
                f"{measured.loss:+.4f}",
                f"{measured.kl_divergence:.5f}",
                f"{measured.top_1_agreement:.2%}",
                f"{measured.largest_logit_difference:.3f}",
                f"{measured.microseconds_per_character:.1f}",
            )
            for measured in conversion.verified
        ]
    return "\n".join(line.rstrip() for line in [*lines, *crossed])
