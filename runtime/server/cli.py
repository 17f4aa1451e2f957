"""Command line of the server: `charedge serve`."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from ...console import PLAIN, say
from ...streams import write_error
from ..bundled import DEFAULT, NAMES, find_model
from ..errors import CharedgeError

app = typer.Typer(**PLAIN)


@app.callback()
def group() -> None:
    """Keeps `serve` a command of a group."""


@app.command()
def serve(
    models: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[MODEL]...",
            envvar="CHAREDGE_MODELS",
            help=f"Files made by `charedge convert`, or bundled models: {', '.join(NAMES)}.  [default: {NAMES[0]}]",
            show_default=False,
        ),
    ] = None,
    host: Annotated[
        str, typer.Option(envvar="CHAREDGE_HOST", help="Address to listen on; other than loopback needs --token-file.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(envvar="CHAREDGE_PORT", help="Port to listen on; 0 takes a free one.")] = 8080,
    token_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", envvar="CHAREDGE_TOKEN_FILE", help="Ask for the token in the first line of FILE.  [default: none]"
        ),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            envvar="CHAREDGE_ALLOW_HOST",
            help="Another name of this server in the Host header; repeatable.  [default: none]",
        ),
    ] = None,
    allow_origin: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ORIGIN",
            envvar="CHAREDGE_ALLOW_ORIGIN",
            help="Let pages of ORIGIN (https://...) use this server; repeatable.  [default: none]",
        ),
    ] = None,
    max_length: Annotated[int, typer.Option(envvar="CHAREDGE_MAX_LENGTH", help="Maximum number of characters of a text.")] = 10_000,
    max_prompt: Annotated[
        int, typer.Option(envvar="CHAREDGE_MAX_PROMPT", help="Maximum number of characters of a request's prompts.")
    ] = 100_000,
    max_body: Annotated[
        int | None,
        typer.Option(
            envvar="CHAREDGE_MAX_BODY",
            help="Maximum number of bytes of a request's body.  [default: 6 for each character of --max-prompt, and 16384]",
            show_default=False,
        ),
    ] = None,
    concurrency: Annotated[
        int, typer.Option(envvar="CHAREDGE_CONCURRENCY", help="Maximum number of texts that a model writes at the same time.")
    ] = 32,
    queue: Annotated[int, typer.Option(envvar="CHAREDGE_QUEUE", help="Maximum number of prompts that wait for a model.")] = 64,
    timeout: Annotated[float, typer.Option(envvar="CHAREDGE_TIMEOUT", help="Maximum number of seconds of a request.")] = 600.0,
    sessions: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", envvar="CHAREDGE_SESSIONS", help="Keep sessions in FOLDER.  [default: no sessions]"),
    ] = None,
    max_sessions: Annotated[
        int, typer.Option(envvar="CHAREDGE_MAX_SESSIONS", help="Maximum number of sessions in the folder.")
    ] = 100,
    session_days: Annotated[
        float, typer.Option(envvar="CHAREDGE_SESSION_DAYS", help="Delete sessions that were not used for this number of days.")
    ] = 30.0,
    log_prompts: Annotated[
        bool, typer.Option("--log-prompts", envvar="CHAREDGE_LOG_PROMPTS", help="Log the prompts, too.")
    ] = False,
    threads: Annotated[
        int, typer.Option("--threads", envvar="CHAREDGE_THREADS", help="Threads of the interpreter, at most 128.")
    ] = 1,
    interpreter: Annotated[
        str | None,
        typer.Option(
            "--interpreter",
            metavar="NAME",
            envvar="CHAREDGE_INTERPRETER",
            help="ai-edge-litert or tflite-runtime.  [default: the first that fits]",
        ),
    ] = None,
) -> None:
    """Serve models in OpenAI's completions protocol, with a page to try them."""
    if find_spec("starlette") is None or find_spec("uvicorn") is None:
        raise CharedgeError("`charedge serve` needs starlette and uvicorn: run `pip install 'charedge[serve]'`.")
    from .settings import Settings, read_token

    settings = Settings(
        host=host,
        port=port,
        token=None if token_file is None else read_token(token_file),
        allow_host=tuple(allow_host or ()),
        allow_origin=tuple(allow_origin or ()),
        max_length=max_length,
        max_prompt=max_prompt,
        max_body=max_body,
        concurrency=concurrency,
        queue=queue,
        timeout=timeout,
        sessions=sessions,
        max_sessions=max_sessions,
        session_days=session_days,
        log_prompts=log_prompts,
    )
    paths = [find_model(path) for path in models or []] or [DEFAULT]
    from .serve import serve as serve_models

    with _log_to_stderr():
        serve_models(
            paths, settings, threads=threads, interpreter=interpreter, announce=lambda address: say(f"listening on {address}")
        )


class _Lines(logging.Handler):
    """Prints log records to stderr, without control characters."""

    def emit(self, record: logging.LogRecord) -> None:
        write_error(f"charedge: {self.format(record)}")


@contextmanager
def _log_to_stderr() -> Iterator[None]:
    """Print the log of the server in the block; uvicorn's would repeat it."""
    log, other = logging.getLogger(__package__), logging.getLogger("uvicorn.error")
    handler = _Lines()
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    other.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.removeHandler(handler)
