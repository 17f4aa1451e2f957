"""A plot that compares the model files of all quantizations."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from io import BytesIO

from .build import Built


def draw_comparison(results: Sequence[Built], title: str) -> bytes:
    """Plot the loss over the size of each file.

    Args:
        results: the files.
        title: of the plot.

    Returns:
        A PNG file.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    reference, temperature = results[0].worst.reference_nats_per_character, results[0].logit_temperature
    fitted = temperature is not None and temperature.fitted_on_verified  # then only the differences from Keras are results
    zero, keras = (reference, "Keras, float32") if fitted else (0.0, f"Keras, float32: {reference:.4f}")
    axes.axhline(reference - zero, color="gray", linestyle="--", linewidth=1, label=keras)
    for color, result in enumerate(results):
        for measured, marker in zip(result.measurements, "o^", strict=False):
            speed = f"{measured.microseconds_per_character:.0f} us"
            label = f"{result.quantization} on {measured.interpreter}: {measured.loss:+.4f}, {speed}"
            axes.plot(
                len(result.data) / 1e6, measured.nats_per_character - zero, marker, color=f"C{color}", markersize=8, label=label
            )
        at = (len(result.data) / 1e6, result.worst.nats_per_character - zero)
        axes.annotate(result.quantization, at, textcoords="offset points", xytext=(0, 9), ha="center")
    axes.margins(x=0.12, y=0.25)
    axes.set_xlim(left=0)
    axes.ticklabel_format(axis="y", useOffset=False)
    axes.set_xlabel("size of the file, MB")
    axes.set_ylabel(f"nats per character{' more than Keras' if fitted else ''}, held-out text")
    axes.set_title(title, parse_math=False)
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    picture = BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # of a name that the font lacks
        figure.savefig(picture, format="png", dpi=120)
    return picture.getvalue()
