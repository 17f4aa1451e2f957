"""The result of a deployment: what was done, and what the model is like there and here."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from ..runtime.errors import CharedgeError
from .ssh import Target

PACKAGE = __name__.partition(".")[0]
CHARACTERS = 500
"""That `charedge bench` generates for each figure."""


@dataclass(frozen=True)
class Measured:
    """A model on a machine."""

    machine: str
    interpreter: str
    nats_per_character: float
    """Of the probe, which every machine must repeat."""
    microseconds_per_character: float
    peak_rss_bytes: int
    """Of `charedge bench`, which loads the model twice."""


@dataclass(frozen=True)
class Deployment:
    """A deployment that has succeeded."""

    target: str
    model: str
    sha256: str
    done: tuple[str, ...]
    """What was done; nothing if the device had it all."""
    there: Measured | None
    here: Measured | None
    """None after a rollback, whose model need not be here, and where nothing is to be done yet."""
    command: str
    """The line that generates."""
    service: tuple[str, str] | None = None
    """Kind and scope of the model's service."""
    warnings: tuple[str, ...] = ()
    dry_run: bool = False

    def to_dict(self) -> dict[str, Any]:
        """The fields, for JSON."""
        return {"status": "planned" if self.dry_run else "deployed" if self.done else "unchanged", **asdict(self)}


def measured_from(bench: dict[str, Any], nats_per_character: float) -> Measured:
    """The figures, from what `charedge bench` and `charedge verify` print as JSON."""
    machine = bench["machine"]
    return Measured(
        machine=f"{machine.get('processor', 'unknown')}, {machine.get('architecture', 'unknown')}",
        interpreter=bench["interpreter"],
        nats_per_character=nats_per_character,
        microseconds_per_character=bench["microseconds_per_character"],
        peak_rss_bytes=bench["peak_rss_bytes"],
    )


def measure_here(model: Path, nats_per_character: float) -> Measured:
    """Measure a model on this machine, in a process of its own, as on the device.

    Raises:
        CharedgeError: the benchmark failed.
    """
    command = [
        sys.executable,
        "-m",
        PACKAGE,
        "bench",
        str(model.resolve()),
        "--json",
        "--characters",
        str(CHARACTERS),
    ]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise CharedgeError((result.stderr.strip().splitlines() or ["the benchmark failed here"])[-1].removeprefix("charedge: "))
    return measured_from(json.loads(result.stdout), nats_per_character)


def restored(values: Any) -> Measured | None:
    """Figures from JSON; None if they are not complete."""
    names = [field.name for field in fields(Measured)]
    if not isinstance(values, dict) or set(values) != set(names):
        return None
    return Measured(**values)


def generating_command(target: Target, prefix: str, name: str) -> str:
    """The line that generates a text on the device, for this machine's shell."""
    there = shlex.join([f"{prefix}/venv/bin/charedge", "generate", f"{prefix}/models/{name}"])
    return shlex.join(["ssh", *target.options, target.address, there])


def table(deployment: Deployment) -> list[str]:
    """The lines that end a deployment."""
    title = f"{deployment.target}: {deployment.model}, SHA-256 {deployment.sha256[:16]}"
    columns = [("there", deployment.there), ("here", deployment.here)]
    shown = [(head, figures) for head, figures in columns if figures is not None]
    rows = [["", *(head for head, _ in shown)]]
    for label, text in (
        ("machine", lambda f: f.machine),
        ("interpreter", lambda f: f.interpreter),
        ("verified", lambda f: f"{f.nats_per_character:.6f} nats per character"),
        ("per character", lambda f: f"{f.microseconds_per_character:,.1f} us"),
        ("peak memory", lambda f: f"{f.peak_rss_bytes / 2**20:.1f} MiB"),
    ):
        rows.append([label, *(text(figures) for _, figures in shown)])
    return [title, *(_aligned(rows) if shown else []), f"next: {deployment.command}"]


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
