"""The web page on which people try a model: what the page of the format `html` and that of `charedge serve` share.

The parts are in the folder `page`: `index.html`, its style, and `page.js`, which shows what an engine writes. The engine is a
script of the kind of page: `page/server.js` asks a server, `converter/page/engine.js` runs the model in the browser.

In `index.html`, `{{page.css}}` is the place of a file of this folder or of a value, and what is between `{{#server}}` and
`{{/server}}` is only for that kind of page.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple

PARTS = Path(__file__).parent / "page"
SECTION = re.compile(r"\{\{#(file|server)\}\}\n?(.*?)\{\{/\1\}\}\n?", re.DOTALL)
SLOT = re.compile(r"\{\{([a-z_.]+)\}\}")
SOURCES = {"file": "worker-src blob:", "server": "connect-src 'self'"}
"""What each kind of page may load besides its own text."""


class WebPage(NamedTuple):
    """A page, complete in one document."""

    html: str
    policy: str
    """Its Content-Security-Policy, which the document contains, too: only its own scripts and styles, told by their SHA-256."""


def build_web_page(kind: Literal["file", "server"], values: Mapping[str, str]) -> WebPage:
    """Put the parts of a page together.

    Args:
        kind: `file` runs the model in the browser, `server` asks the server that the page comes from.
        values: what stands in the slots that are not files of the folder `page`.
    """

    def fill(slot: re.Match[str]) -> str:
        name = slot[1]
        if name == "policy":
            return slot[0]
        return values[name] if name in values else (PARTS / name).read_text(encoding="utf-8").rstrip("\n")

    index = (PARTS / "index.html").read_text(encoding="utf-8")
    html = SLOT.sub(fill, SECTION.sub(lambda section: section[2] if section[1] == kind else "", index))
    policy = "; ".join(
        (
            "default-src 'none'",
            f"script-src {_hashes(html, 'script')}",
            f"style-src {_hashes(html, 'style')}",
            "img-src data:",
            SOURCES[kind],
            "base-uri 'none'",
            "form-action 'none'",
        )
    )
    return WebPage(html.replace("{{policy}}", policy, 1), policy)


def _hashes(html: str, tag: str) -> str:
    """The sources of a policy that allow the content of the elements of this tag that have no attributes."""
    contents = re.findall(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
    return " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'" for content in contents)
