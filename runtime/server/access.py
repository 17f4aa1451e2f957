"""Who may ask: the `Host` header, the page that a request comes from, and the token."""

from __future__ import annotations

import hmac
import ipaddress
import socket
from urllib.parse import urlsplit

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .errors import ApiError
from .replies import error_response
from .service import Service

OPEN_PATHS = frozenset(("/", "/health"))
"""Need no token: a page cannot send one before it is loaded, and a supervisor has none."""
WHILE_LOADING = frozenset(("/", "/health", "/metrics", "/openapi.json"))
"""Are answered before the models are loaded, and while the server stops."""
PREFLIGHT_SECONDS = 600
DEFAULT_PORTS = {"http": 80, "https": 443}


class Guard:
    """Answers the requests that the app behind it must not see.

    A web page of another server can make a browser send requests here, also after its own name was made to point here (DNS
    rebinding). The first is told by the `Origin` header, the second by the `Host` header.
    """

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app, self._service = app, service
        self._hosts = {"localhost", *_own_names(), *(name.lower().strip("[]") for name in service.settings.allow_host)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = {key.decode("latin-1"): value.decode("latin-1") for key, value in scope["headers"]}
        origin = headers.get("origin")
        allowed = origin is not None and origin in self._service.settings.allow_origin
        if allowed:
            send = _with_headers(send, {"access-control-allow-origin": str(origin), "vary": "Origin"})
        try:
            self._check_host(headers.get("host", ""))
            if origin is not None and not allowed and not _is_same(origin, headers.get("host", "")):
                raise ApiError(403, "pages of this origin may not ask: allow it when you start the server.", code="origin")
            if allowed and scope["method"] == "OPTIONS" and "access-control-request-method" in headers:
                await _preflight()(scope, receive, send)
                return
            self._check_token(scope["path"], headers.get("authorization", ""))
            self._check_state(scope["path"])
        except ApiError as error:
            await error_response(error)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _check_host(self, header: str) -> None:
        host = _split_host(header)[0]
        if host not in self._hosts and not _is_address(host):
            message = "this server does not have the name that the `Host` header gives: allow it when you start the server."
            raise ApiError(421, message, code="host")

    def _check_token(self, path: str, header: str) -> None:
        token = self._service.settings.token
        if token is None or path in OPEN_PATHS:
            return
        scheme, _, given = header.partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode("latin-1"), token.encode("ascii")):
            headers = {"WWW-Authenticate": "Bearer"}
            raise ApiError(
                401, "this server needs its token: send it as `Authorization: Bearer TOKEN`.", code="token", headers=headers
            )

    def _check_state(self, path: str) -> None:
        state = self._service.state
        if state != "ready" and path not in WHILE_LOADING:
            closing = {"Connection": "close"} if state == "draining" else {}
            message = "the models are still loading" if state == "loading" else "the server is stopping"
            raise ApiError(503, f"{message}: try again in a moment.", code=state, headers=closing)


def _own_names() -> set[str]:
    """The names of this machine in its network."""
    name = socket.gethostname().lower()
    return {name, f"{name.partition('.')[0]}.local"}


def _split_host(netloc: str) -> tuple[str, int | None]:
    """Host in small letters, without brackets, and port."""
    try:
        parts = urlsplit(f"//{netloc}")
        return (parts.hostname or "").rstrip("."), parts.port
    except ValueError:
        return "", None


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _is_same(origin: str, host: str) -> bool:
    """Whether an origin is this server, as the client names it."""
    scheme, _, netloc = origin.partition("://")
    default = DEFAULT_PORTS.get(scheme)
    (ours, port), (theirs, their_port) = _split_host(host), _split_host(netloc)
    return default is not None and ours != "" and (ours, port or default) == (theirs, their_port or default)


def _preflight() -> Response:
    headers = {
        "Access-Control-Allow-Methods": "GET, POST, PUT, DELETE",
        "Access-Control-Allow-Headers": "Authorization, Content-Type",
        "Access-Control-Max-Age": str(PREFLIGHT_SECONDS),
    }
    return Response(status_code=204, headers=headers)


def _with_headers(send: Send, added: dict[str, str]) -> Send:
    """A `send` that adds headers to the response."""
    encoded = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in added.items()]

    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), *encoded]}
        await send(message)

    return send_with_headers
