"""What a server may do: where it listens, who may ask, and the limits of a request."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path

from ..errors import CharedgeError, InvalidOption
from ..text import read_bytes

HOST_NAME = re.compile(r"[A-Za-z0-9._-]+|\[?[0-9A-Fa-f:.]+\]?")
ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[A-Za-z0-9._\[\]:-]+")
SHORTEST_TOKEN = 16


@dataclass(frozen=True)
class Settings:
    """The settings of a server.

    Raises:
        InvalidOption: a field has an invalid value, or the server would be open to a network without a token.
    """

    host: str = "127.0.0.1"
    """The address or name to listen on."""
    port: int = 8080
    """0 takes a free one."""
    token: str | None = None
    """What requests must present; None asks for nothing, which only a loopback address may do."""
    allow_host: tuple[str, ...] = ()
    """Names in the `Host` header besides `localhost`, the machine's own name and IP addresses."""
    allow_origin: tuple[str, ...] = ()
    """Web pages of other servers that may ask, each as `https://example.org`."""
    max_length: int = 10_000
    """Maximum number of characters of a text."""
    max_prompt: int = 100_000
    """Maximum number of characters of all prompts of a request, or of a text to score."""
    max_body: int | None = None
    """Maximum number of bytes of a request's body; None is 6 for each character of `max_prompt`, and 16,384 for the rest."""
    concurrency: int = 32
    """Maximum number of texts that a model writes at the same time."""
    queue: int = 64
    """Maximum number of prompts that wait for a model."""
    timeout: float = 600.0
    """Maximum number of seconds of a request."""
    sessions: Path | None = None
    """The folder of the sessions; None has none."""
    max_sessions: int = 100
    """Maximum number of sessions in the folder."""
    session_days: float = 30.0
    """Sessions that were not used for this number of days are deleted."""
    log_prompts: bool = False
    """Whether prompts are logged."""

    def __post_init__(self) -> None:
        for name, low, high in (
            ("port", 0, 65_535),
            ("max_length", 1, 10_000_000),
            ("max_prompt", 1, 10_000_000),
            ("body_bytes", 1, 1_000_000_000),
            ("concurrency", 1, 1_024),
            ("queue", 0, 100_000),
            ("timeout", 0.1, 1_000_000),
            ("max_sessions", 1, 1_000_000),
            ("session_days", 0.001, 100_000),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise InvalidOption(name.replace("body_bytes", "max_body"), f"{value} must be from {low:,} to {high:,}.")
        for entry in self.allow_host:
            if not HOST_NAME.fullmatch(entry):
                raise InvalidOption("allow_host", f"{entry!r} must be the name of a host, without a port.")
        for entry in self.allow_origin:
            if not ORIGIN.fullmatch(entry):
                raise InvalidOption("allow_origin", f"{entry!r} must be a scheme and a host, as in 'https://example.org'.")
        if self.token is None and not is_loopback(self.host):
            raise InvalidOption(
                "host", f"{self.host} can be reached from other machines: give `token_file`, or listen on 127.0.0.1."
            )

    @property
    def body_bytes(self) -> int:
        """Maximum number of bytes of a request's body."""
        return 6 * self.max_prompt + 16_384 if self.max_body is None else self.max_body


def is_loopback(host: str) -> bool:
    """Whether an address or name can only be reached from this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def read_token(path: Path) -> str:
    """The token of a file: its first line.

    Raises:
        CharedgeError: the file cannot be read, or its first line is not a token that is long enough.
    """
    line = (read_bytes(path).splitlines() or [b""])[0].strip()
    if len(line) < SHORTEST_TOKEN or not re.fullmatch(rb"[!-~]+", line):
        raise CharedgeError(
            f"the first line of `token_file` {path} must be a token of at least {SHORTEST_TOKEN} characters without spaces: "
            f"`openssl rand -hex 16` makes one."
        )
    return line.decode("ascii")
