"""The page at `/`, on which people try the models of the server."""

from __future__ import annotations

from functools import cache

from ..web_page import PARTS, WebPage, build_web_page


@cache
def _built() -> WebPage:
    engine = (PARTS / "server.js").read_text(encoding="utf-8").rstrip("\n")
    return build_web_page("server", {"title": "charedge", "name": "charedge", "generator": "charedge", "engine.js": engine})


def page() -> bytes:
    """The HTML, complete in one document."""
    return _built().html.encode()


def policy() -> str:
    """The Content-Security-Policy that it is sent with."""
    return f"{_built().policy}; frame-ancestors 'none'"
