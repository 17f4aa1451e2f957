"""`charedge convert`. TensorFlow is imported when the command runs, not before."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from ..console import JSON, PLAIN, print_json
from ..display import Display
from ..runtime.errors import InvalidOption
from .convert import Conversion, Page, convert_all, export_html, export_saved_model
from .convert import convert as convert_run
from .profiles import PROFILES

app = typer.Typer(**PLAIN)

FORMATS = ("tflite", "saved-model", "html")
MEANINGLESS = {
    "--format saved-model": ("folder", "quantization", "tolerance", "name", "author", "license", "notes"),
    "--format html": ("folder",),
    "--all": ("output", "quantization"),
}
"""Arguments that would do nothing beside an option."""
HEADINGS = ("", "nats/char", "vs Keras", "KL div.", "top-1", "logits", "us/char")
ROW = "{:<23}  {:>9}  {:>8}  {:>7}  {:>7}  {:>6}  {:>7}"  # 79 columns


@app.command()
def convert(
    ctx: typer.Context,
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder made by `charedge train`.", show_default=False)],
    output: Annotated[
        Path | None, typer.Option(metavar="MODEL", help="The .tflite or .html file to write, or the folder of the SavedModel.")
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option("--all", metavar="DIR", help="Write a file of every quantization here, and a comparison."),
    ] = None,
    quantization: Annotated[
        str, typer.Option(metavar="|".join(PROFILES), help="How the weights are stored; int4 runs on LiteRT only.")
    ] = "int8",
    format: Annotated[
        str,
        typer.Option(
            metavar="|".join(FORMATS), help="A model file for devices, a SavedModel for TensorFlow, or a page for browsers."
        ),
    ] = "tflite",
    tolerance: Annotated[
        float | None,
        typer.Option(
            metavar="NATS",
            help="Nats per character that the file may lose against the Keras model.  [default: "
            + ", ".join(f"{name} {profile.tolerance:g}" for name, profile in PROFILES.items())
            + "]",
        ),
    ] = None,
    fit_temperature: Annotated[
        bool, typer.Option("--fit-temperature", help="Divide the logits by the temperature that predicts the held-out text best.")
    ] = False,
    name: Annotated[str | None, typer.Option(help="Name of the model.  [default: the name of the run folder]")] = None,
    author: Annotated[str, typer.Option(help="Author of the model.")] = "unspecified",
    license: Annotated[str, typer.Option(help="Licence of the model as an SPDX identifier.")] = "unspecified",
    notes: Annotated[
        str, typer.Option(help="What the model writes and its limits, in one line.  [default: none]", show_default=False)
    ] = "",
    as_json: JSON = False,
) -> None:
    """Convert a run to one .tflite file, and verify it on every interpreter installed here."""
    if format not in FORMATS:
        raise InvalidOption("format", f"{format} is unknown: choose {', '.join(FORMATS)}.")
    if format != "tflite":
        _refuse_meaningless(ctx, f"--format {format}")
    if folder is not None:
        _refuse_meaningless(ctx, "--all")
    if output is None and folder is None:
        raise InvalidOption("output", "is missing: give either --output MODEL or --all DIR.")
    texts = {"name": name, "author": author, "license": license, "notes": notes}
    options: dict[str, Any] = {"tolerance": tolerance, "fit_temperature": fit_temperature, **texts}
    with Display() as display:
        if folder is not None:
            result = convert_all(run, folder, **options, progress=display)
        elif format == "saved-model":
            result = export_saved_model(run, cast(Path, output), fit_temperature=fit_temperature, progress=display)
        elif format == "html":
            result = export_html(run, cast(Path, output), quantization=quantization, **options, progress=display)
        else:
            result = convert_run(run, cast(Path, output), quantization=quantization, **options, progress=display)
    if as_json:
        print_json({"files": [asdict(conversion) for conversion in result]} if isinstance(result, list) else asdict(result))
    elif isinstance(result, list):
        print(_table(result))
        print(f"compared in {folder}: *-comparison.png and *-comparison.json")
    elif isinstance(result, Conversion):
        print(_table([result]))
        print(f"next: charedge generate {shlex.quote(result.file)}")
    elif isinstance(result, Page):
        print(_table([result]))
        print(f"next: open {shlex.quote(result.file)} in a browser")
    else:
        print(
            f"{result.folder}: a SavedModel of {result.bytes:,} bytes; {result.nats_per_character:.4f} nats/character over "
            f"{result.characters:,} held-out characters, largest logit difference to Keras {result.largest_logit_difference:.6f}"
        )
        print(f"next: tf.saved_model.load({result.folder!r}).generate_one_step(...), as docs/command-line.md shows")


def _refuse_meaningless(ctx: typer.Context, option: str) -> None:
    """
    Raises:
        InvalidOption: something was given that would do nothing beside this option.
    """
    for name in MEANINGLESS[option]:
        if "COMMANDLINE" in str(ctx.get_parameter_source(name)):
            raise InvalidOption(name, f"has no effect with {option}: leave one of them out.")


def _table(conversions: Sequence[Conversion | Page]) -> str:
    """A line for Keras; then for each file its name and size, and a line for each interpreter that it was measured on."""
    reference = conversions[0].verified[0].reference_nats_per_character
    lines = [ROW.format(*HEADINGS), ROW.format("Keras", f"{reference:.4f}", *[""] * 5)]
    for conversion in conversions:
        lines.append(f"{Path(conversion.file).name}: {conversion.quantization}, {conversion.bytes:,} bytes")
        lines += [
            ROW.format(
                f"  {measured.interpreter} {measured.version}",
                f"{measured.nats_per_character:.4f}",
                f"{measured.loss:+.4f}",
                f"{measured.kl_divergence:.5f}",
                f"{measured.top_1_agreement:.2%}",
                f"{measured.largest_logit_difference:.3f}",
                f"{measured.microseconds_per_character:.1f}",
            )
            for measured in conversion.verified
        ]
    return "\n".join(line.rstrip() for line in lines)
