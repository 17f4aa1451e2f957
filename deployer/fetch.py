"""Wheels for a device without a network: fetched on this machine for exactly that system, and kept.

The options here are pip's. pip takes wheels of exactly the platforms that are named, so each C library's version that the device's
may stand in for is named.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import threading
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from ..runtime.errors import CharedgeError
from ..runtime.files import cache_folder, partial_folder
from .wheel import OwnWheel

_fetching = threading.Lock()  # several devices of one system share a download
OLDEST_MINOR = 17  # glibc 2.17, which `manylinux2014` means


@dataclass(frozen=True)
class System:
    """What pip must know of a device."""

    machine: str
    """`x86_64`, `aarch64` or `armv7l`."""
    glibc: tuple[int, int]
    python: tuple[int, int]
    has_numpy: bool
    """Whether numpy is Debian's, and not fetched."""
    has_pip: bool
    """Whether Python has pip, or gets it from here."""

    @property
    def tags(self) -> list[str]:
        """The platforms whose wheels run there, the newest first."""
        major, newest = self.glibc
        tags = [f"manylinux_{major}_{minor}_{self.machine}" for minor in range(newest, OLDEST_MINOR - 1, -1)]
        return [*tags, f"manylinux2014_{self.machine}"]


def fetch_wheels(system: System, own: OwnWheel, extras: frozenset[str]) -> list[Path]:
    """The wheels that charedge needs on a device, without its own; from the cache if they were fetched before.

    Raises:
        CharedgeError: pip is missing here, or cannot fetch them.
    """
    groups = _requirements(system, own, extras)
    key = hashlib.sha256(repr((system, groups)).encode()).hexdigest()[:16]
    parent = cache_folder() / "wheels"
    folder = parent / f"{system.machine}-python{system.python[0]}.{system.python[1]}-{key}"
    with _fetching:
        if not folder.is_dir():
            _fetch(system, groups, folder)
    return sorted(folder.glob("*.whl"))


def _fetch(system: System, groups: list[list[str]], folder: Path) -> None:
    """Download groups of wheels into a new folder."""
    if find_spec("pip") is None:
        raise CharedgeError(f"this Python ({sys.executable}) has no pip to fetch the wheels with: install it here.")
    parent = folder.parent
    try:
        parent.mkdir(parents=True, exist_ok=True)
        with partial_folder(parent) as partial:
            for group in groups:
                _download(system, group, partial)
            try:
                partial.replace(folder)
            except OSError:
                if not folder.is_dir():  # or another process was faster
                    raise
    except OSError as error:
        raise CharedgeError(f"{parent} cannot be written ({error.strerror}): set XDG_CACHE_HOME to another folder.") from None


def _requirements(system: System, own: OwnWheel, extras: frozenset[str]) -> list[list[str]]:
    """What is fetched together with what it requires, and then what is fetched alone."""
    required = [*own.requirements, *(line for extra in sorted(extras) for line in own.extras.get(extra, ()))]
    if "serve" in extras:  # pip decides on markers such as `python_version < "3.11"` by the Python that it runs on
        required += ["typing-extensions", *(["exceptiongroup"] if system.python < (3, 11) else [])]
    required += [] if system.has_pip else ["pip"]
    alone: list[str] = []
    if system.has_numpy:  # so what requires it comes without it
        required = [line for line in required if _name(line) != "numpy"]
        alone = [line for line in required if _name(line) == "tflite-runtime"]
        required = [line for line in required if line not in alone]
    return [required, *([["--no-deps", *alone]] if alone else [])]


def _download(system: System, requirements: list[str], folder: Path) -> None:
    """
    Raises:
        CharedgeError: pip failed; the sentence has its last line.
    """
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--dest", str(folder), "--only-binary", ":all:"]
    command += ["--disable-pip-version-check", "--no-input", "--python-version", "{}.{}".format(*system.python)]
    for tag in system.tags:
        command += ["--platform", tag]
    result = subprocess.run([*command, *requirements], capture_output=True, text=True, check=False)
    if result.returncode:
        lines = [line for line in result.stderr.splitlines() if line.startswith("ERROR")] or ["pip failed"]
        raise CharedgeError(
            f"the wheels for Python {system.python[0]}.{system.python[1]} on {system.machine} cannot be fetched here "
            f"({lines[-1].removeprefix('ERROR: ').rstrip('.')}): check the network of this machine."
        )


def _name(requirement: str) -> str:
    return re.split(r"[^\w.-]", requirement)[0].lower().replace("_", "-")
