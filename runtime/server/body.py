"""Reading the body of a request, within a size and a time."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from starlette.requests import ClientDisconnect, Request

from .errors import ApiError
from .watch import Gone

BODY_SECONDS = 30.0
"""The most time for a client to send a body."""
DISCARD_SECONDS = 1.0
"""The most time to read the rest of a body that is too large: a client that still sends does not read the answer."""


class _TooLarge(Exception):
    pass


async def read_json_body(request: Request, most: int) -> bytes:
    """Read a body of JSON.

    Args:
        request: whose body was not read yet.
        most: maximum number of bytes.

    Raises:
        ApiError: 415 if it has another type, so that a form in another site's page cannot send it; or as `read_body`.
        Gone: the client has left.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise ApiError(415, "the body must be JSON: send it with the header `Content-Type: application/json`.", code="content_type")
    return await read_body(request, most)


async def read_body(request: Request, most: int) -> bytes:
    """Read a body.

    Raises:
        ApiError: 413 if it has more bytes than `most`, 408 if it does not come in time.
        Gone: the client has left.
    """
    closing = {"Connection": "close"}
    try:
        return await asyncio.wait_for(_read(request, most), BODY_SECONDS)
    except asyncio.TimeoutError:
        message = f"the body did not arrive within {BODY_SECONDS:g} seconds: send it again."
        raise ApiError(408, message, code="timeout", headers=closing) from None
    except _TooLarge:
        if "expect" not in request.headers:  # else the client waits for us before it sends
            with suppress(asyncio.TimeoutError, ClientDisconnect):
                await asyncio.wait_for(_discard(request), DISCARD_SECONDS)
        message = f"the body is larger than {most:,} bytes: send less."
        raise ApiError(413, message, code="too_large", headers=closing) from None
    except ClientDisconnect:
        raise Gone from None


async def _read(request: Request, most: int) -> bytes:
    length = request.headers.get("content-length", "")
    if length.isdigit() and (len(length) > 15 or int(length) > most):
        raise _TooLarge
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > most:
            raise _TooLarge
    return bytes(body)


async def _discard(request: Request) -> None:
    while (message := await request.receive())["type"] == "http.request" and message.get("more_body"):
        pass
