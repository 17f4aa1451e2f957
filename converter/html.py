"""A model file as a web page: one HTML file that carries the model, and runs it in JavaScript without any network.

The scripts in the folder `page` read the model file and run it; what the page looks like is in `runtime/page`.
"""

from __future__ import annotations

import base64
import html
from pathlib import Path

from ..runtime.errors import CharedgeError, InvalidOption
from ..runtime.model_file import ModelFile
from ..runtime.text import harmless
from ..runtime.web_page import build_web_page

PARTS = Path(__file__).parent / "page"
SCRIPTS = ("engine.js", "model_file.js", "step.js", "sampling.js", "worker.js")
PAGE_QUANTIZATIONS = ("float32", "float16", "int8", "int8-static")
"""What the page's JavaScript can read."""
MAX_PAGE_BYTES = 32_000_000
"""A phone's browser keeps the page, its model and the weights as float32 in memory at the same time."""


def check_page(quantization: str, output: Path) -> None:
    """Check what can be known of a page before the model is converted.

    Raises:
        InvalidOption: the page cannot take the quantization, or the file is not called .html.
    """
    if quantization not in PAGE_QUANTIZATIONS:
        raise InvalidOption("quantization", f"{quantization} is not for pages: choose {', '.join(PAGE_QUANTIZATIONS)}.")
    if output.suffix != ".html":
        raise InvalidOption("output", f"{output} must end in .html.")


def build_page(file: ModelFile, output: Path) -> bytes:
    """The page of a model file.

    Args:
        file: the model file, of a quantization in `PAGE_QUANTIZATIONS`.
        output: where the page will be written, for errors.

    Raises:
        CharedgeError: the page would be larger than `MAX_PAGE_BYTES`.
    """
    data, manifest = file.to_bytes(), file.manifest
    name = html.escape(harmless(manifest.name))
    values = {
        "title": f"{name}: a character model",
        "name": name,
        "generator": html.escape(manifest.created_by),
        "bytes": str(len(data)),
        "model": base64.b64encode(data).decode(),
        **{part: (PARTS / part).read_text(encoding="utf-8").rstrip("\n") for part in SCRIPTS},
    }
    page = build_web_page("file", values).html.encode()
    if len(page) > MAX_PAGE_BYTES:
        raise CharedgeError(
            f"{output} was not written: the page would have {len(page) / 1e6:.1f} MB, and {MAX_PAGE_BYTES / 1e6:.0f} MB are "
            "allowed; choose `quantization` int8, or train fewer units."
        )
    return page
