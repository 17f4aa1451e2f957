"""The systemd units of a model: `serve` answers on a port, `ticker` writes a text at reading speed into the journal."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from ..runtime.errors import InvalidOption

KINDS, SCOPES = ("serve", "ticker"), ("user", "system")
DEFAULT_PORT = 8080
PACE = 12  # characters per second of the ticker, a reader's

UNIT = """\
# Written by charedge deploy, for {name}
[Unit]
Description=charedge {kind}: {description}
{after}
[Service]
ExecStart={command}
WorkingDirectory=/
Restart=on-failure
RestartSec=5
Nice=10
UMask=0077
MemoryMax={memory}
MemorySwapMax=0
NoNewPrivileges=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
SystemCallErrorNumber=EPERM
RestrictAddressFamilies={families}
{sandbox}
[Install]
WantedBy={wanted_by}
"""
SYSTEM_SANDBOX = """\
User={user}
ProtectSystem=strict
ProtectHome=read-only
ReadWritePaths={sessions}
PrivateTmp=yes
PrivateDevices=yes
DevicePolicy=closed
CapabilityBoundingSet=
AmbientCapabilities=
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
ProtectClock=yes
ProtectHostname=yes
ProtectProc=invisible
RemoveIPC=yes
KeyringMode=private
{network}
"""
"""What the manager of a user cannot do."""


@dataclass(frozen=True)
class Wanted:
    """The service that a deployment is to leave behind."""

    kind: str
    """`serve` or `ticker`."""
    scope: str = "user"
    """`user`, or `system` with sudo."""
    port: int = DEFAULT_PORT
    """On the device's loopback address; only `serve` has one."""

    def __post_init__(self) -> None:
        """
        Raises:
            InvalidOption: a field has a value that it cannot have.
        """
        if self.kind not in KINDS:
            raise InvalidOption("service", f"{self.kind} is unknown: choose {', '.join(KINDS)} or none.")
        if not 1 <= self.port <= 65535:
            raise InvalidOption("service_port", f"{self.port} must be from 1 to 65535.")

    @property
    def extras(self) -> frozenset[str]:
        """The extras of charedge that it needs."""
        return frozenset(("serve",)) if self.kind == "serve" else frozenset()


def session_place(prefix: str, name: str, sha256: str) -> str:
    """The ticker's session, which belongs to one model: after a rollback the text before goes on."""
    return f"{prefix}/sessions/{name.removesuffix('.tflite')}-{sha256[:12]}.session"


def health(wanted: Wanted, prefix: str, name: str, sha256: str) -> str:
    """What shows that the service works: an address that answers, or a file that is written."""
    if wanted.kind == "serve":
        return f"http://127.0.0.1:{wanted.port}/health"
    return session_place(prefix, name, sha256)


def unit(wanted: Wanted, prefix: str, user: str, name: str, sha256: str) -> str:
    """The text of the unit, without the line feed at its end.

    Args:
        wanted: the service.
        prefix: absolute path of charedge's folder on the device.
        user: who runs it.
        name: file name of the model.
        sha256: of the model.
    """
    python, model = quoted(f"{prefix}/venv/bin/python"), quoted(f"{prefix}/models/{name}")
    program = f"/usr/bin/env {python} -m charedge"  # the path of a unit's program itself cannot have every character
    is_server, is_system = wanted.kind == "serve", wanted.scope == "system"
    if is_server:
        command = f"{program} serve {model} --port {wanted.port}"
    else:
        session = quoted(session_place(prefix, name, sha256))
        command = f"{program} generate {model} --length 0 --characters-per-second {PACE} --session {session}"
    network = "IPAddressDeny=any\nIPAddressAllow=localhost" if is_server else "PrivateNetwork=yes\nIPAddressDeny=any"
    sandbox = (
        SYSTEM_SANDBOX.format(user=user, sessions=quoted(f"{prefix}/sessions", in_command=False), network=network)
        if is_system
        else ""
    )
    return UNIT.format(
        name=name,
        kind=wanted.kind,
        description="OpenAI's completions protocol" if is_server else "a text without end",
        after="After=network.target\n" if is_server and is_system else "",
        command=command,
        memory="256M" if is_server else "128M",
        families="AF_INET AF_INET6 AF_UNIX" if is_server else "none",
        sandbox=sandbox,
        wanted_by="multi-user.target" if is_system else "default.target",
    ).rstrip("\n")


def unit_sha256(text: str) -> str:
    """The SHA-256 of the unit's file."""
    return hashlib.sha256(f"{text}\n".encode()).hexdigest()


def quoted(argument: str, in_command: bool = True) -> str:
    r"""An argument as systemd reads it: `%` doubled, `$` too in a command, and in quotation marks unless it is plain.

    >>> quoted('/home/pi/my "best" 100%.tflite')
    '"/home/pi/my \\"best\\" 100%%.tflite"'
    """
    escaped = argument.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    escaped = escaped.replace("$", "$$") if in_command else escaped
    return escaped if re.fullmatch(r"[\w@%$+=:,./-]+", escaped) else f'"{escaped}"'
