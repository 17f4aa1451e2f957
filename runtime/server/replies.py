"""Responses of JSON."""

from __future__ import annotations

import json
from typing import Any

from starlette.responses import Response

from .errors import ApiError


def json_response(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A response of JSON in ASCII, which no client misreads."""
    return Response(json.dumps(value), status, {"Cache-Control": "no-store", **(headers or {})}, "application/json")


def error_response(error: ApiError) -> Response:
    """The response for an error."""
    return json_response(error.body, error.status, error.headers)
