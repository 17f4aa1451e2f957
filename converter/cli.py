"""`charedge convert` and `charedge demo`. TensorFlow is imported when a command runs, not before."""

from __future__ import annotations

import math
import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from ..runtime.cli import JSON, PLAIN, print_json, require_tensorflow, say
from ..runtime.errors import CharedgeError, InvalidOption
from ..runtime.files import write_atomically
from ..trainer.cli import RUN

app = typer.Typer(**PLAIN)


@app.command()
def convert(
    run: RUN,
    output: Annotated[Path, typer.Option(metavar="MODEL", help="The .tflite file to write.")],
    quantization: Annotated[str, typer.Option(metavar="float32|int8", help="How the weights are stored.")] = "int8",
    tolerance: Annotated[
        float | None, typer.Option(metavar="NATS", help="How much a character may lose against Keras.  [default: the profile's]")
    ] = None,
    name: Annotated[str | None, typer.Option(help="What the model is called.  [default: the run folder's name]")] = None,
    author: Annotated[str, typer.Option(help="Who made it.")] = "unspecified",
    license: Annotated[str, typer.Option(help="Its licence, as an SPDX identifier.")] = "unspecified",
    as_json: JSON = False,
) -> None:
    """Turn a run into one .tflite file, and verify it."""
    if tolerance is not None and not (math.isfinite(tolerance) and tolerance >= 0):
        raise InvalidOption(f"--tolerance {tolerance:g} must be a number from 0 up, in nats per character.")
    _check_output(output)
    require_tensorflow("convert", "convert")
    from ..trainer.run import Run
    from .pipeline import convert_run
    from .quantization import PROFILES

    if quantization not in PROFILES:
        raise InvalidOption(f"--quantization {quantization} is unknown: choose {' or '.join(PROFILES)}.")
    result = convert_run(Run(run), quantization, name=name, author=author, license=license, progress=say)
    allowed = PROFILES[quantization].tolerance if tolerance is None else tolerance
    worst = max((measurement.quality for measurement in result.measurements), key=lambda quality: quality.loss)
    if not worst.loss <= allowed:  # nor NaN
        raise CharedgeError(
            f"{output} was not written: it would lose {worst.loss:.4f} nats/character against Keras on {worst.interpreter}, "
            f"and {allowed:g} are allowed; choose another --quantization, or raise --tolerance."
        )
    try:
        write_atomically(output, result.data)
    except OSError as error:
        raise CharedgeError(f"--output {output} cannot be written ({error.strerror}): choose another place.") from None
    if as_json:
        measurements = [
            {**asdict(m.quality), "microseconds_per_character": round(m.microseconds_per_character, 1)} for m in result.measurements
        ]
        print_json({"file": str(output), "bytes": len(result.data), "quantization": quantization, "verified": measurements})
        return
    print(f"{output}: {len(result.data):,} bytes, {quantization}")
    print(f"{'':24} nats/character  against Keras  us/character")
    print(f"{'Keras, float32':24} {worst.reference_nats_per_character:14.4f}")
    for m in result.measurements:
        where = f"{m.quality.interpreter} {m.quality.version}"
        print(f"{where:24} {m.quality.nats_per_character:14.4f} {m.quality.loss:+14.4f} {m.microseconds_per_character:13.1f}")
    print(f"next: charedge generate {output}")


def _check_output(output: Path) -> None:
    """
    Raises:
        CharedgeError: the file could not be written there, which is better known before the work than after it.
    """
    if output.is_dir():
        raise CharedgeError(f"--output {output} is a folder: give the name of a .tflite file.")
    if not output.parent.is_dir():
        raise CharedgeError(f"--output {output} is in a folder that does not exist: make {output.parent} first.")
    if not os.access(output.parent, os.W_OK):
        raise CharedgeError(f"--output {output} cannot be written, {output.parent} is read-only: choose another place.")


@app.command()
def demo(
    output: Annotated[Path, typer.Option(metavar="FOLDER", help="Where the run and the model go.")] = Path("charedge-demo"),
) -> None:
    """Train, convert and generate on Python's own documentation, in about two minutes."""
    require_tensorflow("demo", "train,convert")
    from .demo import run_demo

    run_demo(output)
