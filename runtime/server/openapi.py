"""The description of the server in OpenAPI, made of the fields that requests are checked with."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from .protocol import FORK_FIELDS, SESSION, Field, completion_fields, score_fields
from .settings import Settings

TEXT, NUMBER, INTEGER, FLAG = ({"type": kind} for kind in ("string", "number", "integer", "boolean"))
EVERYWHERE = (401, 403, 421, 503)
"""Statuses that every path may answer with: see `access.py`."""
BODY = (400, 408, 413, 415, 422)
"""Statuses of a path that takes a body."""
MEANINGS = {
    200: "The answer.",
    201: "It was made.",
    204: "It was deleted.",
    400: "The body is not JSON.",
    401: "The token is missing or wrong.",
    403: "The page of this origin may not ask.",
    404: "It does not exist.",
    408: "The body did not arrive in time.",
    409: "The session is in use, exists already or cannot be used.",
    413: "The body is too large.",
    415: "The body has another type.",
    421: "The Host header has another name.",
    422: "A field is wrong.",
    429: "The queue is full.",
    500: "The model or the disk failed.",
    503: "The models are loading, or the server is stopping.",
    504: "The time is over.",
}


def describe_api(settings: Settings) -> dict[str, Any]:
    """The object of `/openapi.json`."""
    json_body = {"application/json": {}}
    completion = {**_json("Completion"), "text/event-stream": {}}
    file = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
    name = [{"name": "name", "in": "path", "required": True, "schema": SESSION}]
    model = [{"name": "name", "in": "path", "required": True, "schema": TEXT}]
    paths: dict[str, dict[str, Any]] = {
        "/": {"get": _operation("The page.", {"text/html": {"schema": TEXT}})},
        "/health": {"get": _operation("Whether requests are answered.", _json("Health"))},
        "/metrics": {"get": _operation("Figures for Prometheus.", {"text/plain": {"schema": TEXT}})},
        "/openapi.json": {"get": _operation("This description.", json_body)},
        "/v1/models": {"get": _operation("All models.", _json("Models"))},
        "/v1/models/{name}": {"get": _operation("One model.", _json("Model"), (404,), parameters=model)},
        "/v1/completions": {
            "post": _operation(
                "Texts that continue prompts.",
                completion,
                (*BODY, 404, 409, 429, 500, 504),
                requestBody=_body(completion_fields(settings)),
            )
        },
        "/v1/score": {
            "post": _operation(
                "How well a model predicts a text.",
                _json("Score"),
                (*BODY, 404, 429, 500, 504),
                requestBody=_body(score_fields(settings)),
            )
        },
        "/v1/sessions": {"get": _operation("All sessions.", _json("Sessions"), (404,))},
        "/v1/sessions/{name}": {
            "parameters": name,
            "get": _operation("A session and the end of its text.", _json("Session"), (404, 409)),
            "delete": _operation("Delete a session.", None, (404, 409, 500), success=204),
        },
        "/v1/sessions/{name}/file": {
            "parameters": name,
            "get": _operation("Save a session elsewhere.", file, (404, 500)),
            "put": _operation(
                "Restore a session.",
                _json("Session"),
                (404, 408, 409, 413, 422, 500),
                requestBody={"required": True, "content": file},
            ),
        },
        "/v1/sessions/{name}/fork": {
            "parameters": name,
            "post": _operation(
                "Copy a session to a new name.",
                _json("Session"),
                (*BODY, 404, 409, 500),
                success=201,
                requestBody=_body(FORK_FIELDS),
            ),
        },
    }
    described: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": "charedge serve", "version": version("charedge")},
        "paths": paths,
        "components": {"schemas": SCHEMAS, "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}},
    }
    if settings.token is not None:
        described["security"] = [{"token": []}]
        for path in ("/", "/health"):
            paths[path]["get"]["security"] = []
    return described


def _operation(
    summary: str, content: dict[str, Any] | None, statuses: Sequence[int] = (), success: int = 200, **parts: Any
) -> dict[str, Any]:
    """What a method of a path does.

    Args:
        summary: a sentence.
        content: of the answer by its type; None is an answer without a body.
        statuses: of the errors that only some paths have.
        success: the status of the answer.
        parts: other parts of OpenAPI's operation object.
    """
    answer = {"description": MEANINGS[success], **({} if content is None else {"content": content})}
    errors = {
        str(status): {"description": MEANINGS[status], "content": _json("Error")} for status in sorted({*EVERYWHERE, *statuses})
    }
    return {"summary": summary, **parts, "responses": {str(success): answer, **errors}}


def _json(schema: str) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}


def _body(fields: Sequence[Field]) -> dict[str, Any]:
    """The body of a request that has these fields."""
    properties = {field.name: _property(field) for field in fields}
    required = [field.name for field in fields if field.required]
    schema = {
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
        **({"required": required} if required else {}),
    }
    return {"required": True, "content": {"application/json": {"schema": schema}}}


def _property(field: Field) -> dict[str, Any]:
    """A field; one that can be left out can also be null."""
    if field.required:
        return {**field.schema, "description": field.description}
    return {"anyOf": [field.schema, {"type": "null"}], "description": field.description}


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


def _list(items: Any) -> dict[str, Any]:
    return _object(object={"const": "list"}, data={"type": "array", "items": items})


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _or_null(*kinds: str) -> dict[str, Any]:
    return {"type": [*kinds, "null"]}


LOGPROBS = {
    "anyOf": [
        _object(
            tokens={"type": "array", "items": TEXT},
            token_logprobs={"type": "array", "items": _or_null("number")},
            top_logprobs={"type": "array", "items": {"type": ["object", "null"], "additionalProperties": NUMBER}},
            text_offset={"type": "array", "items": INTEGER},
        ),
        {"type": "null"},
    ]
}
SCHEMAS: dict[str, Any] = {
    "Error": _object(error=_object(message=TEXT, type=TEXT, param=_or_null("string"), code=_or_null("string"))),
    "Health": _object(status={"enum": ["ok", "loading", "draining"]}),
    "Model": _object(id=TEXT, object={"const": "model"}, created=INTEGER, owned_by=TEXT, manifest={"type": "object"}),
    "Models": _list(_ref("Model")),
    "Choice": _object(text=TEXT, index=INTEGER, logprobs=LOGPROBS, finish_reason={"enum": ["stop", "length", None]}),
    "Usage": _object(prompt_tokens=INTEGER, completion_tokens=INTEGER, total_tokens=INTEGER),
    "Completion": _object(
        id=TEXT,
        object={"const": "text_completion"},
        created=INTEGER,
        model=TEXT,
        choices={"type": "array", "items": _ref("Choice")},
        usage=_ref("Usage"),
    ),
    "Score": _object(
        object={"const": "score"},
        model=TEXT,
        nats_per_character=NUMBER,
        bits_per_character=NUMBER,
        characters=INTEGER,
        skipped_characters=INTEGER,
        adapted=FLAG,
    ),
    "Session": _object(
        name=SESSION,
        object={"const": "session"},
        model=_or_null("string"),
        model_sha256=_or_null("string"),
        bytes=INTEGER,
        changed=INTEGER,
    ),
    "Sessions": _list(_ref("Session")),
}
