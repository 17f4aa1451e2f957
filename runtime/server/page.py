"""The page at `/`."""

from __future__ import annotations


def page() -> bytes:
    """The HTML of the page."""
    return b"<!doctype html><title>charedge</title><p>charedge serve: see /v1/models.</p>"
