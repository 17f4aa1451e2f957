"""The wheel of charedge itself, made of the files of this installation.

It needs no clone, no build tool and no network, and the same files give the same bytes. What it depends on is what setup.py says:
a 32-bit ARM system has other dependencies, and a wheel with a tag of its own.
"""

from __future__ import annotations

import base64
import hashlib
import io
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import Distribution, distribution, distributions
from pathlib import Path

PACKAGE = __name__.partition(".")[0]
ROOMS = ("runtime", "trainer", "converter", "deployer")

TYPER = "typer>=0.21,<0.29"
TAGS = {"armv7l": "manylinux_2_34_armv7l"}
"""By the machine; all others have `any`."""
REQUIREMENTS = {
    "any": (TYPER, "ai-edge-litert>=2.3,<3", "numpy>=1.23"),
    "manylinux_2_34_armv7l": (TYPER, "tflite-runtime==2.14.0", "numpy>=1.23,<2"),
}
"""By the tag, as in setup.py."""


@dataclass(frozen=True)
class OwnWheel:
    """A wheel of charedge."""

    name: str
    """File name."""
    content: bytes
    requirements: tuple[str, ...]
    """Without those of extras."""
    extras: dict[str, tuple[str, ...]]
    """Requirements of each extra."""

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()


def own_wheel(machine: str) -> OwnWheel:
    """The wheel of charedge for a machine, as `make wheels` makes it.

    Args:
        machine: `x86_64`, `aarch64` or `armv7l`.
    """
    tag, installed = TAGS.get(machine, "any"), distribution(PACKAGE)
    version, requirements, extras = installed.version, REQUIREMENTS[TAGS.get(machine, "any")], _extras(installed)
    information = f"{PACKAGE}-{version}.dist-info"
    scripts = "".join(f"{entry.name} = {entry.value}\n" for entry in installed.entry_points if entry.group == "console_scripts")
    members = dict(_files())
    members[f"{information}/METADATA"] = _metadata(installed, requirements, extras)
    members[f"{information}/WHEEL"] = (
        f"Wheel-Version: 1.0\nGenerator: charedge {version}\nRoot-Is-Purelib: true\nTag: py3-none-{tag}\n".encode()
    )
    members[f"{information}/entry_points.txt"] = f"[console_scripts]\n{scripts}".encode()
    if license := _license():
        members[f"{information}/licenses/LICENSE"] = license.encode()
    record = f"{information}/RECORD"
    members[record] = ("".join(_record(name, content) for name, content in members.items()) + f"{record},,\n").encode()
    return OwnWheel(f"{PACKAGE}-{version}-py3-none-{tag}.whl", _zip(members), requirements, extras)


def _files() -> Iterator[tuple[str, bytes]]:
    """The files of the package, by their names in the wheel; in a clone, the rooms are beside the package's folder."""
    root = import_module(PACKAGE).__file__
    assert root is not None
    folder = Path(root).parent
    yield from ((f"{PACKAGE}/{path.name}", path.read_bytes()) for path in sorted(folder.iterdir()) if path.is_file())
    for room in ROOMS:
        room_file = import_module(f"{PACKAGE}.{room}").__file__
        assert room_file is not None
        folder = Path(room_file).parent
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            within = path.relative_to(folder)
            if not any(part.startswith((".", "__pycache__")) for part in within.parts):
                yield f"{PACKAGE}/{room}/{within.as_posix()}", path.read_bytes()


def _license() -> str:
    """The text of the licence; in a clone, the information that lies beside the code does not have it."""
    return next((text for found in distributions(name=PACKAGE) if (text := found.read_text("licenses/LICENSE"))), "")


def _extras(installed: Distribution) -> dict[str, tuple[str, ...]]:
    """The requirements of each extra."""
    extras: dict[str, list[str]] = {}
    for line in installed.requires or []:
        if found := re.fullmatch(r"""(.+?)\s*;\s*(?:(.+) and )?extra\s*==\s*["'](.+)["']""", line):
            extras.setdefault(found[3], []).append(found[1] if found[2] is None else f"{found[1]}; {found[2]}")
    return {name: tuple(lines) for name, lines in extras.items()}


def _metadata(installed: Distribution, requirements: tuple[str, ...], extras: dict[str, tuple[str, ...]]) -> bytes:
    known = installed.metadata
    lines = ["Metadata-Version: 2.4", f"Name: {PACKAGE}", f"Version: {installed.version}"]
    lines += [f"{key}: {known[key]}" for key in ("Summary", "Requires-Python", "License-Expression") if known[key]]
    lines += ["License-File: LICENSE"] if _license() else []
    lines += [f"Requires-Dist: {requirement}" for requirement in requirements]
    for name, required in extras.items():
        lines.append(f"Provides-Extra: {name}")
        for requirement in required:
            bare, _, marker = (part.strip() for part in requirement.partition(";"))
            lines.append(f"Requires-Dist: {bare}; {f'({marker}) and ' if marker else ''}extra == '{name}'")
    return ("\n".join(lines) + "\n").encode()


def _record(name: str, content: bytes) -> str:
    """A line of RECORD."""
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
    return f"{name},sha256={digest},{len(content)}\n"


def _zip(members: dict[str, bytes]) -> bytes:
    """A ZIP whose bytes depend on the members alone: they are stored, and have a fixed date."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            entry = zipfile.ZipInfo(name)
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, content)
    return file.getvalue()
