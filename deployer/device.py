"""What a device is and has, read by one script that changes nothing."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from .ssh import Connection

ARCHITECTURES = {"amd64": "x86_64", "arm64": "aarch64", "armhf": "armv7l", "armel": "armv6l", "i386": "i686"}
"""Debian's names, and those of wheels."""
THIRTY_TWO_BITS = {"aarch64": "armv7l", "armv8l": "armv7l", "x86_64": "i686"}
"""A 32-bit system under a kernel that calls its machine by the name on the left."""


@dataclass(frozen=True)
class Python:
    """A Python on the PATH of the device."""

    path: str
    version: tuple[int, int]
    bits: int
    has_venv: bool
    has_pip: bool
    """Whether it can put pip into a virtual environment."""
    numpy: str | None
    """Version of the numpy that it sees, which is Debian's."""

    @property
    def release(self) -> str:
        return "{}.{}".format(*self.version)


@dataclass(frozen=True)
class Service:
    """A systemd unit that a deployment of this model wrote."""

    kind: str
    """`serve` or `ticker`."""
    scope: str
    """`user` or `system`."""
    sha256: str = ""
    """Of the unit."""
    port: int | None = None
    is_active: bool = False


@dataclass(frozen=True)
class Environment:
    """The virtual environment in use."""

    name: str
    """Of its folder."""
    wheel: str
    """SHA-256 of the charedge wheel in it."""
    python: str
    """Version, as in `3.11`."""
    extras: frozenset[str]


@dataclass(frozen=True)
class Device:
    """A device before a deployment."""

    system: str
    """As `uname -s` says, `Linux`."""
    machine: str
    """Architecture of its programs, as in the names of wheels: a 64-bit kernel may run a 32-bit system."""
    libc: str
    """`glibc 2.36`, or what `ldd` says of itself."""
    user: str
    prefix: str
    """Absolute path of the folder of charedge."""
    is_writable: bool
    """Whether the user may make that folder, or write into it."""
    free_bytes: int | None
    """On the file system of that folder."""
    memory_bytes: int | None
    pythons: tuple[Python, ...]
    """The default one first."""
    environment: Environment | None = None
    model_sha256: str = ""
    previous_sha256: str = ""
    signature_sha256: str = ""
    """Of what is there; empty where nothing is."""
    is_unfinished: bool = False
    """Whether a power cut ended the last deployment of this model before its service worked."""
    measured: dict[str, Any] = field(default_factory=dict)
    """The figures of the last deployment of this model."""
    services: tuple[Service, ...] = ()
    systemd: str = ""
    """`yes`, or why a service of the wanted scope cannot be made; empty if none is wanted."""
    holder: str = ""
    """Who holds the lock of the folder."""

    @property
    def glibc(self) -> tuple[int, int] | None:
        """Version of the C library, where it is GNU's."""
        found = re.fullmatch(r"glibc (\d+)\.(\d+).*", self.libc)
        return (int(found[1]), int(found[2])) if found else None


def look(connection: Connection, prefix: str, name: str, scope: str | None = None) -> Device:
    """Look at a device.

    Args:
        connection: to the device.
        prefix: folder of charedge there: absolute, beginning with `~/`, or in the home folder.
        name: file name of the model.
        scope: `user` or `system`, where a service is wanted.

    Raises:
        CharedgeError: the device has no POSIX shell, or the connection was cut.
    """
    return parse(connection.run("look", prefix, name, scope or ""))


def parse(text: str) -> Device:
    """A device from the lines KEY=VALUE of `look.sh`; a key may be there several times."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        key, _, value = line.partition("=")
        found.setdefault(key, []).append(value.strip())

    def one(key: str) -> str:
        return found.get(key, [""])[0]

    return Device(
        system=one("system"),
        machine=_machine(one("machine"), one("package_architecture"), one("word_bits")),
        libc=one("libc"),
        user=one("user"),
        prefix=one("prefix"),
        is_writable=one("writable") == "1",
        free_bytes=_bytes(one("free_kib")),
        memory_bytes=_bytes(one("memory_kib")),
        pythons=tuple(_pythons(found.get("python", []))),
        environment=_environment(one("venv"), one("venv_wheel"), one("venv_python"), one("venv_extras")),
        model_sha256=one("model_sha256"),
        previous_sha256=one("previous_sha256"),
        signature_sha256=one("signature_sha256"),
        is_unfinished=one("unfinished") == "1",
        measured=_json(one("measured")),
        services=tuple(_services(found.get("service", []))),
        systemd=one("systemd"),
        holder=one("holder"),
    )


def _machine(kernel: str, packages: str, bits: str) -> str:
    """The architecture of the system's programs: what its packages are made for, else the kernel's with the word length.

    Debian's armhf is ARMv7, but Raspberry Pi OS has the same name for ARMv6, which its oldest boards have.
    """
    if packages in ARCHITECTURES and not kernel.startswith("armv6"):
        return ARCHITECTURES[packages]
    return THIRTY_TWO_BITS.get(kernel, kernel) if bits == "32" else kernel


def _bytes(kibibytes: str) -> int | None:
    return int(kibibytes) * 1024 if kibibytes.isdigit() else None


def _pythons(lines: list[str]) -> Iterator[Python]:
    for line in lines:
        fields = line.split(" ", 5)
        if len(fields) == 6 and re.fullmatch(r"\d+\.\d+ \d+ [01] [01]", " ".join(fields[:4])):
            major, minor = fields[0].split(".")
            numpy = None if fields[4] == "-" else fields[4]
            yield Python(fields[5], (int(major), int(minor)), int(fields[1]), fields[2] == "1", fields[3] == "1", numpy)


def _environment(name: str, wheel: str, python: str, extras: str) -> Environment | None:
    return Environment(name, wheel, python, frozenset(extras.split())) if name and wheel else None


def _services(lines: list[str]) -> Iterator[Service]:
    for line in lines:
        kind, scope, sha256, state, port = (*line.split(" "), "", "")[:5]
        yield Service(kind, scope, sha256, int(port) if port.isdigit() else None, state == "active")


def _json(text: str) -> dict[str, Any]:
    """An object, or nothing where the text is no JSON object."""
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
