"""Errors as the protocol has them: a status, and an object with a message, a type, the name of a field and a code."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ..errors import CharedgeError, InvalidOption
from ..sampling import NotFinite
from .jobs import Busy, Ended

TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}
"""The type of an error by its status; of the others it is `server_error` from 500 up, and else `invalid_request_error`."""
RETRY_SECONDS = {429: 1, 503: 2}
"""What `Retry-After` says."""
API_NAMES = {"length": "max_tokens"}
"""Arguments of the Python API that are fields of another name here."""
FIELD = re.compile(r"`([a-z][a-z0-9_]*)`")
MAX_MESSAGE = 500


class ApiError(Exception):
    """A request that cannot be answered.

    Attributes:
        status: of the response.
        message: a sentence that says what to do.
        param: the field that is wrong, if it is one.
        code: a word for programs.
        headers: additional headers of the response.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.param, self.code = status, param, code
        self.message = message if len(message) <= MAX_MESSAGE else f"{message[:MAX_MESSAGE]}..."
        self.headers = dict(headers or {})
        if status in RETRY_SECONDS:
            self.headers["Retry-After"] = str(RETRY_SECONDS[status])

    @property
    def body(self) -> dict[str, Any]:
        """The JSON object of the response."""
        kind = TYPES.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


def as_api_error(error: CharedgeError) -> ApiError:
    """The error of the Python API as one of the protocol: wrong arguments are wrong fields."""
    if isinstance(error, Busy):
        return ApiError(429, str(error), code="queue_full")
    if isinstance(error, Ended):
        return ApiError(503, str(error), code="stopping")
    message = FIELD.sub(lambda match: f"`{API_NAMES.get(match[1], match[1])}`", str(error))
    if isinstance(error, InvalidOption):
        return ApiError(422, message, param=API_NAMES.get(error.field, error.field), code="invalid_value")
    if isinstance(error, NotFinite):
        return ApiError(500, message, code="model_failed")
    named = FIELD.match(message)
    if named is not None:
        return ApiError(422, message, param=named[1], code="invalid_value")
    return ApiError(500, message, code="failed")
