"""Loss curves of a run as a PNG picture."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

from ..runtime.files import write_atomically
from .run import Epoch


def draw_curves(history: Sequence[Epoch], path: Path) -> None:
    """Draw training and validation loss by epoch, and mark the best validation loss.

    Args:
        history: at least one epoch.
        path: the PNG file to write, in the run folder.

    Raises:
        OSError: the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    epochs = [epoch.epoch for epoch in history]
    best = min(history, key=lambda epoch: epoch.validation_nats_per_character)
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.plot(epochs, [epoch.train_nats_per_character for epoch in history], marker=".", label="training")
    axes.plot(epochs, [epoch.validation_nats_per_character for epoch in history], marker=".", label="validation, state carried")
    axes.plot(best.epoch, best.validation_nats_per_character, "o", mfc="none", ms=10, color="C1")
    axes.annotate(
        f"{best.validation_nats_per_character:.4f}",
        (best.epoch, best.validation_nats_per_character),
        textcoords="offset points",
        xytext=(0, 10),
        ha="center",
    )
    axes.set_xlabel("epoch")
    axes.set_ylabel("nats per character")
    axes.set_title(path.parent.name, parse_math=False)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend()
    picture = BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # of a name that the font lacks
        figure.savefig(picture, format="png", dpi=120)
    write_atomically(path, picture.getvalue())
