"""What a deployment has to do on a device: a function of what the device has and of what is wanted.

Nothing is changed before this has decided; what cannot be done is refused here, in the sentences of docs/devices.md.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from ..runtime.errors import CharedgeError
from ..runtime.wheels import MINIMUM_GLIBC, WHEELS
from .device import Device, Python, Service
from .service import DEFAULT_PORT, Wanted, health, unit, unit_sha256

OLDEST_PYTHON = (3, 10)
MEGABYTE = 1_000_000
INSTALLED_BYTES = {"armv7l": 40 * MEGABYTE}
CARRIED_BYTES = {"armv7l": 15 * MEGABYTE}
"""Beside Debian's numpy."""
MOST_INSTALLED_BYTES, MOST_CARRIED_BYTES = 160 * MEGABYTE, 50 * MEGABYTE
SPARE_BYTES = 5 * MEGABYTE


@dataclass(frozen=True)
class Request:
    """What is to be on a device in the end."""

    name: str
    """File name of the model."""
    sha256: str
    bytes: int
    interpreters: frozenset[str]
    """Names of those that run the file."""
    signature_sha256: str = ""
    service: Wanted | None = None
    """None leaves the service of this model as it is."""
    remove_service: bool = False
    offline: bool = False
    """Whether the wheels are carried even if the device has a network."""


@dataclass(frozen=True)
class Plan:
    """The decisions about a deployment."""

    python: Python
    environment: str
    """Name of the virtual environment's folder."""
    extras: frozenset[str]
    installs: bool
    copies: bool
    signs: bool
    """Whether a signature is copied."""
    commits: bool
    """Whether anything is put in its place."""
    service: Wanted | None
    """The service to restart; None if there is none, or it is not touched."""
    unit: str
    """Its text."""
    health: str
    removes: Service | None
    """The service to remove."""


def choose_python(device: Device, request: Request) -> Python:
    """The Python that runs charedge on a device: the default one, if it can, else the newest that can.

    Raises:
        CharedgeError: charedge cannot run there, with what to do in place of it.
    """
    _check_system(device)
    published = {name: WHEELS[name] for name in ("ai-edge-litert", "tflite-runtime") if device.machine in WHEELS[name].machines}
    usable = {name: wheels for name, wheels in published.items() if name in request.interpreters}
    if not usable:
        needed = " or ".join(sorted(request.interpreters & set(WHEELS)))
        raise CharedgeError(
            f"{request.name} needs {needed}, which has no wheels for {device.machine}: "
            "use a 64-bit system, or convert the run with `quantization` int8."
        )
    interpreter = "ai-edge-litert" if "ai-edge-litert" in published else "tflite-runtime"
    newest = WHEELS[interpreter].newest_python
    bits = 32 if device.machine == "armv7l" else 64
    pythons = [python for python in device.pythons if python.bits == bits]
    fitting = [python for python in pythons if OLDEST_PYTHON <= python.version <= newest]
    if not fitting:
        raise CharedgeError(_no_python(device, pythons, newest))
    able = [python for python in fitting if python.has_venv]
    if not able:
        raise CharedgeError("its Python has no venv: run `sudo apt install -y python3-venv` there.")
    if device.machine == "armv7l":
        able = [python for python in able if python.numpy and python.numpy.split(".")[0] == "1"]
        if not able:
            raise CharedgeError(
                "a 32-bit system needs Debian's numpy, version 1, which PyPI has no wheels of: "
                "run `sudo apt install -y python3-numpy` there."
            )
    return able[0]


def _check_system(device: Device) -> None:
    """
    Raises:
        CharedgeError: no interpreter runs on this system.
    """
    if device.system != "Linux":
        raise CharedgeError(f"charedge deploys to Linux, and this system is {device.system or 'unknown'}: use Linux.")
    if device.machine.startswith("armv6"):
        raise CharedgeError("neither interpreter has wheels for ARMv6 (Pi 1, Pi Zero, Zero W): use a Pi 2, Zero 2 W or later.")
    if not any(device.machine in wheels.machines for wheels in WHEELS.values()):
        raise CharedgeError(f"there are no wheels for {device.machine}: use a 64-bit system, or 32-bit ARM from ARMv7 on.")
    if device.glibc is None:
        raise CharedgeError(f"the interpreters' wheels need glibc, and this system has {device.libc or 'another C library'}.")
    if device.glibc < MINIMUM_GLIBC:
        raise CharedgeError(
            f"glibc {device.glibc[0]}.{device.glibc[1]} is older than {MINIMUM_GLIBC[0]}.{MINIMUM_GLIBC[1]}, which the "
            "interpreters need: use Debian 12, Ubuntu 22.04 or later."
        )


def _no_python(device: Device, pythons: list[Python], newest: tuple[int, int]) -> str:
    """Why no Python of a device can run charedge."""
    if not pythons:
        return "there is no Python: run `sudo apt install -y python3 python3-venv` there."
    found = ", ".join(python.release for python in pythons)
    if device.machine == "armv7l" and pythons[0].version > newest:
        return (
            f"tflite-runtime has no wheels after Python {newest[0]}.{newest[1]}, LiteRT has none for 32-bit systems, and this "
            f"Python is {found}: use the 64-bit system."
        )
    return (
        f"charedge needs Python {OLDEST_PYTHON[0]}.{OLDEST_PYTHON[1]} to {newest[0]}.{newest[1]}, and this system has {found}: "
        "install another one there."
    )


def plan(device: Device, request: Request, wheel_sha256: str) -> Plan:
    """Decide what has to be done.

    Args:
        device: as it is.
        request: what is wanted.
        wheel_sha256: of the charedge wheel that this machine would install there.

    Returns:
        The decisions; nothing is done if the device has all that is wanted.

    Raises:
        CharedgeError: charedge cannot run there, or there is no space, or no systemd.
    """
    python = choose_python(device, request)
    wanted, removes = _service(device, request)
    before = device.environment
    extras = (before.extras if before else frozenset()) | (wanted.extras if wanted else frozenset())
    installs = before is None or (before.wheel, before.python) != (wheel_sha256, python.release) or before.extras != extras
    environment = environment_name(wheel_sha256, python, extras) if before is None or installs else before.name
    copies = device.model_sha256 != request.sha256
    signs = bool(request.signature_sha256) and (copies or device.signature_sha256 != request.signature_sha256)
    text = sign_of_life = ""
    if wanted:
        text = unit(wanted, device.prefix, device.user, request.name, request.sha256)
        sign_of_life = health(wanted, device.prefix, request.name, request.sha256)
    runs = any(found.sha256 == unit_sha256(text) and (found.is_active or not request.service) for found in device.services)
    commits = installs or copies or signs or device.is_unfinished or (wanted is not None and not runs)
    if commits:
        _check_space(device, request, installs)
    return Plan(python, environment, extras, installs, copies, signs, commits, wanted, text, sign_of_life, removes)


def environment_name(wheel_sha256: str, python: Python, extras: frozenset[str]) -> str:
    """The name of a virtual environment's folder, by what is in it."""
    return hashlib.sha256(repr((wheel_sha256, python.release, python.path, sorted(extras))).encode()).hexdigest()[:16]


def _service(device: Device, request: Request) -> tuple[Wanted | None, Service | None]:
    """The service that a model is to have, and the one that it is to lose.

    Raises:
        CharedgeError: it has another one, or the device cannot run one.
    """
    found = device.services[0] if device.services else None
    if request.remove_service:
        return None, found
    wanted = request.service
    if wanted is None:
        return (None if found is None else Wanted(found.kind, found.scope, found.port or DEFAULT_PORT)), None
    if found and (found.kind, found.scope) != (wanted.kind, wanted.scope):
        raise CharedgeError(
            f"{request.name} has the {found.scope} service {found.kind} there: remove it first, with `service` none, "
            "or leave `service` out."
        )
    if device.systemd != "yes":
        raise CharedgeError(
            f"it cannot run a {wanted.scope} service ({device.systemd or 'there is no systemd'}): "
            + (
                "let this user run sudo without a password, or leave out `system`."
                if wanted.scope == "system"
                else "leave out `service`."
            )
        )
    return wanted, None


def _check_space(device: Device, request: Request, installs: bool) -> None:
    """
    Raises:
        CharedgeError: the folder cannot be written, or its disk has too little space.
    """
    if not device.is_writable:
        raise CharedgeError(f"{device.prefix} cannot be written by {device.user}: choose another folder with `prefix`.")
    needed = 2 * request.bytes + SPARE_BYTES
    if installs:
        needed += INSTALLED_BYTES.get(device.machine, MOST_INSTALLED_BYTES) + CARRIED_BYTES.get(device.machine, MOST_CARRIED_BYTES)
    if device.free_bytes is not None and device.free_bytes < needed:
        raise CharedgeError(
            f"its disk has {device.free_bytes / MEGABYTE:,.0f} MB free at {device.prefix}, and {needed / MEGABYTE:,.0f} MB are "
            "needed: free some space there, or choose another disk with `prefix`."
        )


def steps(plan: Plan, device: Device, request: Request) -> Iterator[str]:
    """The steps of a plan as sentences; none if nothing is to be done."""
    if plan.installs:
        again = "again, " if device.environment else ""
        yield f"install charedge {again}with Python {plan.python.release} in {device.prefix}/venv"
    if plan.copies:
        yield f"copy {request.name}, {request.bytes:,} bytes"
    if plan.signs:
        yield "copy its signature"
    if plan.commits:
        kept = ", and keep the current one as the previous one" if plan.copies and device.model_sha256 else ""
        yield f"verify it there, then put it at {device.prefix}/models/{request.name}{kept}"
    if plan.commits and plan.service:
        yield f"restart the {plan.service.scope} service charedge-{plan.service.kind}, and go back if it does not work"
    if plan.removes:
        yield f"remove the {plan.removes.scope} service charedge-{plan.removes.kind}"
