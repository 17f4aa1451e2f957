"""The pictures of the pages: quality against size from the figures of `make models`, and speed against size from growth.py.

python benchmarks/pictures.py build/figures build/growth.json
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, Literal

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

Rows = list[dict[str, Any]]

MODELS = ("base", "wide", "shakespeare", "shakespeare-tiny")
"""Those of `make models`."""
NANOGPT_BYTES, NANOGPT_NATS = 42_600_000, 1.4697  # its character model: 10.65 million parameters as float32, windows of 256
PROFILES = {"float32": 0, "float16": 1, "int8": 2, "int4": 3, "int8-static": 4}
"""The colour of each profile in a theme."""
SIZE, DPI = (7.6, 4.4), 160  # inches


@dataclass(frozen=True)
class Theme:
    """Colours for one of GitHub's modes."""

    name: str
    paper: str
    ink: str
    faint: str
    colors: tuple[str, ...]
    """Distinct for colour-blind readers, too."""
    peer: str


THEMES = (
    Theme("light", "#ffffff", "#1f2328", "#818b98", ("#bc4c00", "#8250df", "#0969da", "#1a7f37", "#bf3989"), "#cf222e"),
    Theme("dark", "#0d1117", "#f0f6fc", "#7d8590", ("#f0883e", "#bc8cff", "#58a6ff", "#3fb950", "#f778ba"), "#ff7b72"),
)


def draw_quality(axes: Axes, theme: Theme, models: Rows) -> None:
    """Nats per character over the bytes of the file, by both protocols, and nanoGPT's model."""
    protocols = {"windows of 256": "windows of 256, as nanoGPT is measured", "carried": "state carried"}
    for key, label in protocols.items():
        filled = key == "windows of 256"
        for model in models:
            color = theme.colors[PROFILES[model["quantization"]]]
            look = {"color": color, "markerfacecolor": color if filled else "none", "markersize": 7.5, "markeredgewidth": 1.6}
            axes.plot(model["bytes"], model["mean"][key], "o", **look)
        axes.plot([], [], "o", color=theme.ink, markerfacecolor=theme.ink if filled else theme.paper, label=f"charedge, {label}")
    axes.axhline(NANOGPT_NATS, color=theme.peer, linewidth=1, linestyle=":", zorder=0)
    axes.plot(NANOGPT_BYTES, NANOGPT_NATS, "D", color=theme.peer, markersize=9, label="nanoGPT's character model, float32")
    note(axes, theme.peer, f"nanoGPT {NANOGPT_NATS}", (NANOGPT_BYTES, NANOGPT_NATS), 10)
    smallest = min(models, key=itemgetter("bytes"))
    for model in models:
        windows, carried = model["mean"]["windows of 256"], model["mean"]["carried"]
        text = f"{model['name']}, {model['quantization']}\n● {windows:.4f}\n○ {carried:.4f}"
        color, middle = theme.colors[PROFILES[model["quantization"]]], (windows + carried) / 2
        if model is smallest:  # the next ones stand where its text would be
            note(axes, color, text, (model["bytes"], carried), -10)
        else:
            note(axes, color, text, (model["bytes"], middle), xytext=(9, 0), ha="left", va="center")
    axes.set_title("Quality against size: lower and further left is better", loc="left", color=theme.ink, fontsize=12)
    axes.set_xlabel("bytes of the file")
    axes.set_ylabel("nats/character of held-out text")
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(10, subs=(1, 2, 5)))
    axes.margins(x=0.15, y=0.15)
    add_legend(axes, theme, "center right")


def draw_speed(axes: Axes, theme: Theme, sizes: Rows, processor: str) -> None:
    """Microseconds a character over the bytes that a step reads, each profile a line, and the floor below all of them."""
    floor = sorted(sizes, key=itemgetter("bytes_read"))
    reads, times = columns(floor, "bytes_read", "read_floor_microseconds")
    axes.plot(reads, times, color=theme.faint, linestyle="--", linewidth=1.5, label="reading the weights once, and nothing else")
    lowest = min(times) / 2
    axes.fill_between(reads, lowest, times, color=theme.faint, alpha=0.15, linewidth=0)
    for quantization, profile in groupby(sizes, itemgetter("quantization")):
        points, color = list(profile), theme.colors[PROFILES[quantization]]
        axes.plot(*columns(points, "bytes_read", "microseconds_per_character"), "o-", color=color, markersize=6, label=quantization)
        for point in points:
            at = (point["bytes_read"], point["microseconds_per_character"])
            note(axes, color, str(point["units"]), at, -8 if quantization == "float32" else 8)  # its line is the lowest
    units = sorted({size["units"] for size in sizes})
    axes.set_title(f"Speed against size: GRUs of {units[0]} to {units[-1]} units", loc="left", color=theme.ink, fontsize=12)
    axes.set_xlabel(f"bytes of weights that a step reads ({processor}, one thread)")
    axes.set_ylabel("microseconds/character")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_ylim(bottom=lowest)
    axes.xaxis.set_major_locator(LogLocator(10))
    axes.yaxis.set_major_locator(LogLocator(10))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    add_legend(axes, theme, "upper left")


def add_legend(axes: Axes, theme: Theme, corner: Literal["upper left", "center right"]) -> None:
    axes.legend(loc=corner, fontsize=9, frameon=False, labelcolor=theme.ink)


def columns(rows: Iterable[dict[str, Any]], *names: str) -> list[list[float]]:
    rows = list(rows)
    return [[row[name] for row in rows] for name in names]


def note(axes: Axes, color: str, text: str, at: tuple[float, float], points: int = 0, **changes: Any) -> None:
    """Text some points above a position, or below it, legible over a line."""
    options = {"xytext": (0, points), "color": color, "fontsize": 9, "ha": "center", "va": "bottom" if points > 0 else "top"}
    options |= {"linespacing": 1.4, "path_effects": [withStroke(linewidth=3, foreground=axes.get_facecolor())], "zorder": 1.5}
    axes.annotate(text, at, textcoords="offset points", **options | changes)


def in_bytes(value: float, _: int) -> str:
    """2e6 -> 2 MB."""
    for unit, scale in {"GB": 1e9, "MB": 1e6, "kB": 1e3}.items():
        if value >= scale:
            return f"{value / scale:g} {unit}"
    return f"{value:g} B"


def save(draw: Callable[[Axes, Theme], None], path: Path) -> None:
    """A picture for each theme: NAME-light.png and NAME-dark.png."""
    for theme in THEMES:
        figure = Figure(figsize=SIZE, layout="constrained", facecolor=theme.paper)
        FigureCanvasAgg(figure)
        axes = figure.add_subplot(facecolor=theme.paper)
        draw(axes, theme)
        axes.xaxis.set_major_formatter(FuncFormatter(in_bytes))
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_minor_locator(NullLocator())
            axis.label.set_color(theme.ink)
        axes.tick_params(colors=theme.ink)
        axes.grid(color=theme.faint, alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(theme.faint)
        figure.savefig(path.with_name(f"{path.name}-{theme.name}.png"), dpi=DPI, metadata={"Software": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("figures", type=Path, help="the folder that tools/train_models.py wrote")
    parser.add_argument("growth", type=Path, help="what growth.py wrote")
    parser.add_argument("--folder", type=Path, default=Path("docs/pictures"))
    options = parser.parse_args()
    try:
        growth = json.loads(options.growth.read_text())
        models = [json.loads((options.figures / f"{name}.json").read_text()) for name in MODELS]
    except OSError as error:
        sys.exit(f"{error.filename} cannot be read ({error.strerror}): run `make models` and `make bench-growth` first.")
    options.folder.mkdir(parents=True, exist_ok=True)
    save(lambda axes, theme: draw_quality(axes, theme, models), options.folder / "quality")
    save(lambda axes, theme: draw_speed(axes, theme, growth["sizes"], growth["machine"]["processor"]), options.folder / "speed")


if __name__ == "__main__":
    main()
