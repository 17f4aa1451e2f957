"""The interpreters' wheels: which one fits this machine, and the command that installs it."""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import dataclass

MINIMUM_GLIBC = (2, 34)  # of both interpreters' libraries


@dataclass(frozen=True)
class Wheels:
    """The platforms for which an interpreter is published."""

    machines: tuple[str, ...]
    """`x86_64`, or as `machine` names them."""
    newest_python: tuple[int, int]
    install: str
    """Arguments of `pip install`; `{}` is the minimum version."""


WHEELS = {
    "ai-edge-litert": Wheels(("x86_64", "aarch64"), (3, 14), "'ai-edge-litert>={}'"),
    "tflite-runtime": Wheels(("x86_64", "aarch64", "armv7l"), (3, 11), "'tflite-runtime>={}' 'numpy<2'"),
}
"""By distribution name."""


def machine() -> str:
    """The architecture of this system's programs: a 64-bit kernel reports its own, even under a 32-bit system."""
    name = {"AMD64": "x86_64", "arm64": "aarch64"}.get(platform.machine(), platform.machine())
    if sys.maxsize > 2**32:
        return name
    return {"aarch64": "armv7l", "armv8l": "armv7l", "x86_64": "i686"}.get(name, name)


def advice(wanted: dict[str, str]) -> str:
    """Say how to install one of several interpreters on this machine.

    Args:
        wanted: the minimum version of each, by distribution name, the preferred one first.

    Returns:
        The end of a sentence.
    """
    here, python = machine(), sys.version_info[:2]
    if (glibc := _glibc()) and glibc < MINIMUM_GLIBC:
        return (
            f"no interpreter runs on glibc {glibc[0]}.{glibc[1]}, so use a system with "
            f"{MINIMUM_GLIBC[0]}.{MINIMUM_GLIBC[1]} or later, as Debian 12 and Ubuntu 22.04 have"
        )
    published = {name: minimum for name, minimum in wanted.items() if here in WHEELS[name].machines}
    for name, minimum in published.items():
        if python <= WHEELS[name].newest_python:
            return f"run `pip install {WHEELS[name].install.format(minimum)}`"
    if published:
        newest = WHEELS[next(iter(published))].newest_python
        return (
            f"its wheels end with Python {newest[0]}.{newest[1]}, and this is {python[0]}.{python[1]}, "
            f"so use an earlier Python{' or a 64-bit system' if here == 'armv7l' else ''}"
        )
    if here in WHEELS["tflite-runtime"].machines:
        return "this system has no wheel of it, so use tflite-runtime, with a file of `quantization` int8"
    return f"there are no wheels for {here}, so use a 64-bit system, or 32-bit ARM from ARMv7 on"


def _glibc() -> tuple[int, int] | None:
    """The version of the C library, where it is GNU's."""
    try:
        name, _, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
        major, minor = version.split(".")[:2]
        return (int(major), int(minor)) if name == "glibc" else None
    except (AttributeError, ValueError, OSError):  # another C library, or no POSIX
        return None
