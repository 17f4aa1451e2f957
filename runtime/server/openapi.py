"""The description of the server in OpenAPI, made of the fields that requests are checked with."""

from __future__ import annotations

from typing import Any

from .settings import Settings


def describe_api(settings: Settings) -> dict[str, Any]:
    """The object of `/openapi.json`."""
    return {}
