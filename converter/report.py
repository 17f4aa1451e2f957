"""What a conversion measured, for people to read, for programs to read, and as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from io import BytesIO
from pathlib import Path
from typing import Any

from .build import Built
from .quantization import PROFILES

HEADINGS = ("file", "bytes", "on", "nats/char", "against Keras", "KL divergence", "same top-1", "largest logit", "us/char")
NUMBERS = 3  # the columns from here on are numbers, but for `bytes`, which is one too


def table(files: Sequence[tuple[Built, Path]]) -> str:
    """A line for Keras, and one for each file on each interpreter that it was measured on."""
    rows = [HEADINGS, ("Keras", "", "", f"{files[0][0].worst.reference_nats_per_character:.4f}", "", "", "", "", "")]
    for result, path in files:
        for i, measurement in enumerate(result.measurements):
            quality = measurement.quality
            rows.append(
                (
                    "" if i else path.name,
                    "" if i else f"{len(result.data):,}",
                    f"{quality.interpreter} {quality.version}",
                    f"{quality.nats_per_character:.4f}",
                    f"{quality.loss:+.4f}",
                    f"{quality.kl_divergence:.5f}",
                    f"{quality.top_1_agreement:.2%}",
                    f"{quality.largest_logit_difference:.3f}",
                    f"{measurement.microseconds_per_character:.1f}",
                )
            )
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column == 1 or column >= NUMBERS else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def fields(result: Built, path: Path) -> dict[str, Any]:
    """A file and its measurements as JSON."""
    measurements = [
        {**asdict(m.quality), "microseconds_per_character": round(m.microseconds_per_character, 1)} for m in result.measurements
    ]
    interpreters = PROFILES[result.quantization].interpreters
    return {
        "file": str(path),
        "bytes": len(result.data),
        "quantization": result.quantization,
        "interpreters": [{"name": name, "minimum_version": minimum} for name, minimum in interpreters.items()],
        "verified": measurements,
    }


def draw_comparison(results: Sequence[Built], title: str) -> bytes:
    """Quality against size as a PNG: what a character loses against Keras, over the file's bytes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    reference = results[0].worst.reference_nats_per_character
    axes.axhline(reference, color="gray", linestyle="--", linewidth=1, label=f"Keras, float32: {reference:.4f}")
    for color, result in enumerate(results):
        for measurement, marker in zip(result.measurements, "o^", strict=False):
            quality = measurement.quality
            speed = f"{measurement.microseconds_per_character:.0f} us"
            label = f"{result.quantization} on {quality.interpreter}: {quality.loss:+.4f}, {speed}"
            axes.plot(len(result.data) / 1e6, quality.nats_per_character, marker, color=f"C{color}", markersize=8, label=label)
        at = (len(result.data) / 1e6, result.worst.nats_per_character)
        axes.annotate(result.quantization, at, textcoords="offset points", xytext=(0, 9), ha="center")
    axes.margins(x=0.12, y=0.25)
    axes.set_xlim(left=0)
    axes.ticklabel_format(axis="y", useOffset=False)
    axes.set_xlabel("size of the file, MB")
    axes.set_ylabel("nats per character, held-out text")
    axes.set_title(title)
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    picture = BytesIO()
    figure.savefig(picture, format="png", dpi=120)
    return picture.getvalue()
