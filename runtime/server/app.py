"""The server as an ASGI app: its paths, and what answers each."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from ..errors import CharedgeError
from .access import Guard
from .body import read_body, read_json_body
from .completions import CompletionAnswer
from .errors import ApiError, as_api_error
from .openapi import describe_api
from .page import page, policy
from .protocol import FORK_FIELDS, Completion, completion_fields, read_fields, score_fields
from .record import LEFT, Recorded, record_of
from .replies import error_response, json_response
from .scores import ScoreAnswer
from .service import Service
from .sessions import most_bytes
from .strict_json import parse_object
from .watch import Gone

log = logging.getLogger(__name__)

CODES = {404: "not_found", 405: "method_not_allowed"}
LARGE_BODY = 10_000
"""Bytes of a body from which on it is parsed in another thread."""


def create_app(service: Service) -> ASGIApp:
    """The app that answers the requests of a service."""
    app = Starlette(
        routes=ROUTES,
        exception_handlers={ApiError: _on_api_error, Gone: _on_gone, HTTPException: _on_http_exception, Exception: _on_exception},
    )
    app.router.redirect_slashes = False
    app.state.service = service
    return Recorded(Guard(app, service), service.metrics, {route.endpoint: route.path for route in ROUTES})


async def show_page(request: Request) -> Response:
    """The page at `/`."""
    headers = {"Content-Security-Policy": policy(), "Cache-Control": "no-cache", "Referrer-Policy": "no-referrer"}
    return Response(page(), headers=headers, media_type="text/html")


async def show_health(request: Request) -> Response:
    """Whether requests are answered."""
    state = _service(request).state
    return json_response({"status": "ok" if state == "ready" else state}, 200 if state == "ready" else 503)


async def show_metrics(request: Request) -> Response:
    """Figures for Prometheus."""
    service = _service(request)
    text = service.metrics.text(service.models, 0 if service.sessions is None else len(service.sessions))
    return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")


async def show_api(request: Request) -> Response:
    """The description of this server in OpenAPI."""
    return json_response(describe_api(_service(request).settings))


async def list_models(request: Request) -> Response:
    """All models."""
    return json_response({"object": "list", "data": [served.describe() for served in _service(request).models.values()]})


async def show_model(request: Request) -> Response:
    """One model."""
    return json_response(_service(request).find(request.path_params["name"]).describe())


async def complete(request: Request) -> ASGIApp:
    """Texts that continue prompts."""
    service = _service(request)
    fields = completion_fields(service.settings)
    try:
        wanted = Completion.read(fields, await _read_object(request), service.settings)
    except CharedgeError as error:
        raise as_api_error(error) from None
    if service.settings.log_prompts:
        record_of(request.scope).prompts = wanted.prompts
    return CompletionAnswer(service, service.find(wanted.model), wanted)


async def score(request: Request) -> ASGIApp:
    """How well a model predicts a text."""
    service = _service(request)
    values = read_fields(score_fields(service.settings), await _read_object(request))
    if service.settings.log_prompts:
        record_of(request.scope).prompts = [values["text"]]
    return ScoreAnswer(service, service.find(values.pop("model", None)), **values)


async def list_sessions(request: Request) -> Response:
    """All sessions."""
    service = _service(request)
    sessions = await asyncio.to_thread(service.find_sessions().describe, service.models)
    return json_response({"object": "list", "data": sessions})


class OneSession(HTTPEndpoint):
    """A session."""

    async def get(self, request: Request) -> Response:
        """Its model, its size and the end of its text."""
        service, name = _service(request), request.path_params["name"]
        return json_response(await asyncio.to_thread(service.find_sessions().describe_one, name, service.models))

    async def delete(self, request: Request) -> Response:
        """Delete it."""
        await asyncio.to_thread(_service(request).find_sessions().delete, request.path_params["name"])
        return Response(status_code=204)


class SessionFile(HTTPEndpoint):
    """The file of a session, which `charedge generate` reads and writes, too."""

    async def get(self, request: Request) -> Response:
        """Save it elsewhere."""
        name = request.path_params["name"]
        content = await asyncio.to_thread(_service(request).find_sessions().read, name)
        headers = {"Content-Disposition": f'attachment; filename="{name}.session"', "Cache-Control": "no-store"}
        return Response(content, headers=headers, media_type="application/octet-stream")

    async def put(self, request: Request) -> Response:
        """Restore it."""
        service, name = _service(request), request.path_params["name"]
        sessions = service.find_sessions()
        content = await read_body(request, most_bytes(service.models.values()))
        await asyncio.to_thread(sessions.write, name, content, service.models)
        return json_response(await asyncio.to_thread(sessions.describe_one, name, service.models))


async def fork_session(request: Request) -> Response:
    """Copy a session to a new name."""
    service, name = _service(request), request.path_params["name"]
    sessions = service.find_sessions()
    to = read_fields(FORK_FIELDS, await _read_object(request))["to"]
    await asyncio.to_thread(sessions.fork, name, to)
    return json_response(await asyncio.to_thread(sessions.describe_one, to, service.models), 201)


ROUTES = [
    Route("/", show_page, methods=["GET"]),
    Route("/health", show_health, methods=["GET"]),
    Route("/metrics", show_metrics, methods=["GET"]),
    Route("/openapi.json", show_api, methods=["GET"]),
    Route("/v1/models", list_models, methods=["GET"]),
    Route("/v1/models/{name}", show_model, methods=["GET"]),
    Route("/v1/completions", complete, methods=["POST"]),
    Route("/v1/score", score, methods=["POST"]),
    Route("/v1/sessions", list_sessions, methods=["GET"]),
    Route("/v1/sessions/{name}", OneSession),
    Route("/v1/sessions/{name}/file", SessionFile),
    Route("/v1/sessions/{name}/fork", fork_session, methods=["POST"]),
]


def _service(request: Request) -> Service:
    return request.app.state.service


async def _read_object(request: Request) -> dict[str, Any]:
    """The JSON object of a body.

    Raises:
        ApiError: there is none.
        Gone: the client has left.
    """
    body = await read_json_body(request, _service(request).settings.body_bytes)
    return await asyncio.to_thread(parse_object, body) if len(body) > LARGE_BODY else parse_object(body)


async def _on_api_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return error_response(error)


async def _on_gone(request: Request, error: Exception) -> Response:
    record_of(request.scope).left = True
    return Response(status_code=LEFT)


async def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    path = request.url.path[:100]
    if error.status_code == 405:
        message = f"{request.method} is not possible at {path}: the header `Allow` lists what is."
    elif error.status_code == 404:
        message = f"there is nothing at {path}: /openapi.json lists what there is."
    else:
        message = str(error.detail)
    return error_response(ApiError(error.status_code, message, code=CODES.get(error.status_code), headers=error.headers))


async def _on_exception(request: Request, error: Exception) -> Response:
    log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return error_response(ApiError(500, "the server failed: see its log.", code="failed"))
