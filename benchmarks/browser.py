"""What a step costs in Chromium: the page's JavaScript on weights of either type, and LiteRT.js, in turns.

python benchmarks/browser.py              models with random weights, int8, of 2 x 160, 2 x 304 and 2 x 608 units
python benchmarks/browser.py m.tflite     a file of your own

`make test-browser` installs what it needs.
"""

# pyright: reportMissingImports=false

from __future__ import annotations

import argparse
import base64
import re
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from charedge.converter.html import build_page
from charedge.runtime.model_file import read_model_file

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "browser"))

from arguments import positive
from litert_js import PACKAGES, READY, served

SIZES = (160, 304, 608)
WORKER = re.compile(r'<script type="text/plain" id="worker">(.*?)</script>', re.DOTALL)
LOAD = """([base64, bytes, type]) => {
    step = new Step(readModelFile(decodeBase64(base64, bytes)));
    const dense = [step.output, ...step.layers.flatMap(({ input, recurrent }) => [input, recurrent])].filter(Boolean);
    if (type === "Int8Array") { // the speed does not depend on the values
        for (const matrix of dense) matrix.weights = Int8Array.from(matrix.weights, (weight) => Math.round(100 * weight));
    }
}"""
TIME = """(steps) => {
    const began = performance.now();
    for (let i = 0; i < steps; i++) step.advance(1 + (i % 60));
    return 1000 * (performance.now() - began) / steps;
}"""
TIME_LITERT = """async ([steps, stateSize]) => {
    const ids = Array.from({ length: steps }, (_, i) => 1 + (i % 60)), began = performance.now();
    await logitsAfter(ids, stateSize);
    return 1000 * (performance.now() - began) / steps;
}"""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("models", nargs="*", type=Path)
    parser.add_argument("--rounds", type=positive, default=60)
    parser.add_argument("--seconds", type=float, default=0.03, help="of each variant in each round")
    options = parser.parse_args()
    from playwright.sync_api import sync_playwright

    program = shutil.which("chromium") or shutil.which("google-chrome") or sys.exit("Chromium is not installed")
    print(f"{'model':24} {'page bytes':>11}  microseconds a step, the fastest and the median round")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        for path in options.models or [random_model(Path(folder), units) for units in SIZES]:
            page = build_page(read_model_file(path), path)
            times = measure(browser, path, page.decode(), options.rounds, options.seconds)
            shown = "  ".join(f"{name} {min(t):.0f} / {statistics.median(t):.0f}" for name, t in times.items())
            print(f"{path.stem:24} {len(page):11,}  {shown}", flush=True)
        browser.close()


def measure(browser: Any, path: Path, page: str, rounds: int, seconds: float) -> dict[str, list[float]]:
    """Microseconds a step of each variant in each round."""
    (worker,) = WORKER.findall(page)
    data = path.read_bytes()
    variants: dict[str, Callable[[int], float]] = {}
    for kind in ("Float32Array", "Int8Array"):
        tab = browser.new_page()
        tab.add_script_tag(content=worker)
        tab.evaluate(LOAD, [base64.b64encode(data).decode(), len(data), kind])
        variants[kind] = lambda steps, tab=tab: tab.evaluate(TIME, steps)
    if not PACKAGES.is_dir():
        return alternate(variants, rounds, seconds)
    with served(path) as address:
        tab = browser.new_page()
        tab.goto(address)
        tab.wait_for_function(READY)
        size = read_model_file(path).manifest.state_size
        variants["LiteRT.js"] = lambda steps: tab.evaluate(TIME_LITERT, [steps, size])
        return alternate(variants, rounds, seconds)


def alternate(variants: dict[str, Callable[[int], float]], rounds: int, seconds: float) -> dict[str, list[float]]:
    steps = {name: max(3, round(seconds * 1e6 / variant(100))) for name, variant in variants.items()}
    times: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(rounds):
        for name, variant in variants.items():
            times[name].append(variant(steps[name]))
    return times


def random_model(folder: Path, units: int) -> Path:
    import random_models

    return random_models.random_model(folder, units, "int8", layers=2)


if __name__ == "__main__":
    main()
