"""`deploy`: from a model file here to a model that runs on a device. This file is the story, the others are its parts."""

from __future__ import annotations

import json
import re
import tempfile
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ..runtime.errors import CharedgeError, InvalidOption
from ..runtime.model_file import read_model_file
from ..runtime.paths import StrPath, path_argument
from ..runtime.progress import Progress, Report, no_progress
from ..runtime.signature import check_signature
from .device import Device, look
from .install import install, wheels_to_carry
from .lock import Hold, hold
from .plan import Plan, Request, plan, steps
from .report import CHARACTERS, Deployment, Measured, generating_command, measure_here, measured_from, restored
from .service import DEFAULT_PORT, KINDS, Wanted, health, unit
from .signing import allowed_signers_for, sign
from .ssh import Connection, Target, connect, sha256_of
from .wheel import own_wheel

PREFIX = "~/.local/share/charedge"
NAME = re.compile(r"[^/\x00-\x1f\x7f]{1,200}\.tflite")
AFTER = Callable[[Connection, Deployment], object]


@dataclass(frozen=True)
class Options:
    """How a model is deployed; the same for every device."""

    prefix: str = PREFIX
    """Folder on the device: absolute, beginning with `~/`, or in the home folder."""
    service: str | None = None
    """`serve`, `ticker`, `none` to remove the service, or None to leave it as it is."""
    service_port: int = DEFAULT_PORT
    system: bool = False
    """Whether the service is the system's, with sudo, and not the user's."""
    offline: bool = False
    """Whether the wheels are carried even if the device has a network."""
    verify_key: Path | None = None
    """A public key that must have signed the model."""
    dry_run: bool = False
    """Whether nothing is changed."""

    def __post_init__(self) -> None:
        """
        Raises:
            InvalidOption: a field has a value that it cannot have.
        """
        if not self.prefix or re.search(r"[\x00-\x1f\x7f]", self.prefix) or self.prefix.rstrip("/") in ("", "~"):
            raise InvalidOption("prefix", f"{self.prefix!r} must be a folder of its own, as {PREFIX}.")
        if self.system and self.service not in KINDS:
            raise InvalidOption("system", "has no effect without `service` serve or ticker: leave it out.")
        _ = self.wanted

    @property
    def wanted(self) -> Wanted | None:
        """The service to make."""
        if self.service in (None, "none"):
            return None
        return Wanted(self.service, "system" if self.system else "user", self.service_port)


class LocalModel:
    """A model file on this machine that has passed all checks, and its figures here."""

    def __init__(self, path: Path, signature: Path | None, signers: str) -> None:
        self.path, self.name, self.bytes, self.sha256 = path, path.name, path.stat().st_size, sha256_of(path)
        self.signature, self.signers = signature, signers
        contents = read_model_file(path)
        self.interpreters = frozenset(entry.name for entry in contents.manifest.interpreters)
        self.nats_per_character = _verify(path)
        self._lock, self._measured = threading.Lock(), None

    def measured(self) -> Measured:
        """The figures here, measured once for all devices."""
        with self._lock:
            if self._measured is None:
                self._measured = measure_here(self.path, self.nats_per_character)
            return self._measured

    def request(self, options: Options) -> Request:
        """What a device is to have."""
        return Request(
            name=self.name,
            sha256=self.sha256,
            bytes=self.bytes,
            interpreters=self.interpreters,
            signature_sha256=sha256_of(self.signature) if self.signature else "",
            service=options.wanted,
            remove_service=options.service == "none",
            offline=options.offline,
        )


def prepare(model: StrPath, sign_with: Path | None = None, verify_key: Path | None = None) -> LocalModel:
    """Check a model file here before a device sees it, and sign it.

    Args:
        model: the file.
        sign_with: an ssh key, which signs the file, as MODEL.sig beside it.
        verify_key: a public key that must have signed it.

    Raises:
        CharedgeError: it is damaged, does not work here, or is not signed as it must be.
        InvalidOption: a key cannot be used.
    """
    path = path_argument("model", model)
    check_name(path.name)
    read_model_file(path)
    signature = sign(path, sign_with) if sign_with else path.with_name(f"{path.name}.sig")
    signers = allowed_signers_for(verify_key) if verify_key else ""
    if signers:
        if not signature.is_file():
            raise CharedgeError(f"{path} has no signature {signature}: sign it with `sign` and a private key.")
        with tempfile.TemporaryDirectory(prefix="charedge-") as folder:
            allowed = Path(folder) / "allowed_signers"
            allowed.write_text(signers, encoding="utf-8")
            check_signature(path, signature, allowed)
    return LocalModel(path, signature if signature.is_file() else None, signers)


def check_name(name: str) -> None:
    """
    Raises:
        InvalidOption: a model cannot have this file name on a device.
    """
    if not NAME.fullmatch(name) or name.endswith(".previous.tflite"):
        raise InvalidOption("model", f"{name!r} must end in .tflite, not in .previous.tflite, and have no control characters.")


def deploy(
    target: Target,
    model: LocalModel,
    options: Options,
    progress: Progress = no_progress,
    after: AFTER | None = None,
    interactive: bool = True,
) -> Deployment:
    """Deploy a model to one device.

    Args:
        target: the device.
        model: from `prepare`.
        options: how.
        progress: called with reports.
        after: called with the connection, still open, and the result.
        interactive: whether ssh may ask for a password.

    Returns:
        What was done, and the figures there and here.

    Raises:
        CharedgeError: it failed; what ran on the device before still runs there.
    """
    return _at(target, interactive, lambda connection: _deploy(connection, model, options, _teller(target, progress)), after)


def roll_back(
    target: Target,
    name: str,
    options: Options,
    progress: Progress = no_progress,
    after: AFTER | None = None,
    interactive: bool = True,
) -> Deployment:
    """Put the previous model of a device in its place again; the one that was there becomes the previous one.

    Args:
        name: file name of the model.

    Other arguments, and errors: as for `deploy`.
    """
    check_name(name)
    return _at(target, interactive, lambda connection: _roll_back(connection, name, options, _teller(target, progress)), after)


def _at(target: Target, interactive: bool, work: Callable[[Connection], Deployment], after: AFTER | None) -> Deployment:
    """Connect and work; errors name the target."""
    try:
        with connect(target, interactive) as connection:
            result = work(connection)
            if after:
                after(connection, result)
            return result
    except CharedgeError as error:
        error.args = (f"{target.address}: {error}",)
        raise


def _teller(target: Target, progress: Progress) -> Progress:
    """Reports that name the target."""
    return lambda report: progress(
        replace(report, stage=f"{report.stage} {target.address}", message=report.message and f"{target.address}: {report.message}")
    )


def _deploy(connection: Connection, model: LocalModel, options: Options, progress: Progress) -> Deployment:
    request, scope = model.request(options), options.wanted.scope if options.wanted else None
    device = look(connection, options.prefix, model.name, scope)
    own = own_wheel(device.machine)
    decided = plan(device, request, own.sha256)
    done = tuple(steps(decided, device, request))
    result = Deployment(
        target=connection.target.address,
        model=model.name,
        sha256=model.sha256,
        done=done,
        there=None,
        here=None,
        command=generating_command(connection.target, device.prefix, model.name),
        service=(decided.service.kind, decided.service.scope) if decided.service else None,
        dry_run=options.dry_run,
    )
    kept = device.measured if (device.measured.get("sha256"), device.measured.get("wheel")) == (model.sha256, own.sha256) else {}
    result = replace(result, there=restored(kept.get("there")), here=restored(kept.get("here")))
    if options.dry_run or (not done and result.there):
        return result
    carried = wheels_to_carry(connection, device, decided, own, options.offline) if decided.installs else None
    with hold(connection, device) as held:
        if plan(look(connection, options.prefix, model.name, scope), request, own.sha256) != decided:
            raise CharedgeError("another deployment has just ended there: run the command again.")
        if decided.installs:
            from_where = "its own network" if carried is None else f"{len(carried) + 1} wheels copied from here"
            progress(Report("deploy", message=f"install charedge from {from_where}, which takes minutes on a small device"))
            install(held, decided, own, carried, lambda sent, total: progress(Report("copying wheels to", sent, total, "bytes")))
        warnings: tuple[str, ...] = ()
        nats = model.nats_per_character
        if decided.commits:
            nats, warnings = _place(held, decided, model, progress)
        if decided.removes:
            progress(Report("deploy", message=f"remove the service charedge-{decided.removes.kind}"))
            held.run("service+retire", decided.removes.kind, decided.removes.scope)
        progress(Report("deploy", message="measure its speed"))
        there = measured_from(_json_in(held.run("measure", model.name, CHARACTERS)), nats)
        here = model.measured()
        _keep(held, model, {"sha256": model.sha256, "wheel": own.sha256, "there": asdict(there), "here": asdict(here)})
    return replace(result, there=there, here=here, warnings=warnings)


def _place(held: Hold, decided: Plan, model: LocalModel, progress: Progress) -> tuple[float, tuple[str, ...]]:
    """Copy the model and put all that is new in its place; returns the nats per character of the probe there, and warnings."""
    part = f"models/{model.name}.part"
    if decided.copies:
        progress(Report("deploy", message=f"copy {model.name}, {model.bytes:,} bytes"))
        held.push(model.path, part, lambda sent: progress(Report("copying the model to", sent, model.bytes, "bytes")))
    if decided.signs and model.signature:
        held.push(model.signature, f"{part}.sig")
    if model.signers:
        _push_text(held, model.signers, "allowed_signers")
    service_there = f", restart charedge-{decided.service.kind} and wait until it works" if decided.service else ""
    progress(Report("deploy", message=f"verify it there{service_there}"))
    wanted = decided.service
    return _commit(
        held,
        model.name,
        "new" if decided.copies else "same",
        decided.environment,
        wanted,
        decided.unit,
        decided.health,
        "allowed_signers" if model.signers else "",
        decided.signs,
    )


def _commit(
    held: Hold,
    name: str,
    what: str,
    environment: str,
    wanted: Wanted | None,
    text: str,
    sign_of_life: str,
    signers: str = "",
    signed: bool = False,
) -> tuple[float, tuple[str, ...]]:
    """Run `commit.sh`; returns the nats per character of the probe there, and warnings."""
    kind, scope = (wanted.kind, wanted.scope) if wanted else ("", "user")
    place = f"{held.prefix}/{signers}" if signers else ""
    output = held.run("service+commit", name, what, environment, kind, scope, text, sign_of_life, place, int(signed))
    lines = {key: value for key, _, value in (line.partition("=") for line in output.splitlines())}
    warnings = ()
    if lines.get("lingers") == "0":
        warnings = ("the service ends when its user logs out: run `sudo loginctl enable-linger` there for this user.",)
    return float(json.loads(lines["verified"])["nats_per_character"]), warnings


def _json_in(output: str) -> dict[str, Any]:
    """The JSON object that a command printed, after whatever the login shell of the device prints when it starts.

    Raises:
        CharedgeError: there is none.
    """
    try:
        return json.loads(output[output.index("{") :])
    except ValueError:
        message = "the model was installed, but charedge bench prints no figures there: run the command again."
        raise CharedgeError(message) from None


def _keep(held: Hold, model: LocalModel, figures: dict[str, object]) -> None:
    """Keep the figures on the device for the next run, which then need not measure."""
    _push_text(held, json.dumps(figures), f"models/{model.name}.json")


def _push_text(held: Hold, text: str, place: str) -> None:
    with tempfile.TemporaryDirectory(prefix="charedge-") as folder:
        file = Path(folder) / "text"
        file.write_text(text, encoding="utf-8")
        held.push(file, place)


def _roll_back(connection: Connection, name: str, options: Options, progress: Progress) -> Deployment:
    device: Device = look(connection, options.prefix, name)
    if not device.previous_sha256 or device.environment is None:
        raise CharedgeError(f"there is no previous {name} in {device.prefix}: nothing to go back to.")
    found = device.services[0] if device.services else None
    wanted = Wanted(found.kind, found.scope, found.port or DEFAULT_PORT) if found else None
    text = unit(wanted, device.prefix, device.user, name, device.previous_sha256) if wanted else ""
    sign_of_life = health(wanted, device.prefix, name, device.previous_sha256) if wanted else ""
    done = f"restore the previous {name}, and keep the current one as the previous one"
    result = Deployment(
        target=connection.target.address,
        model=name,
        sha256=device.previous_sha256,
        done=(done,),
        there=None,
        here=None,
        command=generating_command(connection.target, device.prefix, name),
        service=(wanted.kind, wanted.scope) if wanted else None,
        dry_run=options.dry_run,
    )
    if options.dry_run:
        return result
    with hold(connection, device) as held:
        progress(Report("deploy", message=done))
        nats, warnings = _commit(held, name, "previous", device.environment.name, wanted, text, sign_of_life)
        there = measured_from(_json_in(held.run("measure", name, CHARACTERS)), nats)
    return replace(result, there=there, warnings=warnings)


def _verify(model: Path) -> float:
    """The probe's nats per character on this machine.

    Raises:
        CharedgeError: the model does not work here.
    """
    from ..runtime.interpreter import Step
    from ..runtime.scoring import run_probe

    contents = read_model_file(model)
    step = Step.load(contents, 1, None)
    result = run_probe(step, contents)
    if not result.passed:
        raise CharedgeError(f"{model} does not work with {step.interpreter} on this machine: convert the run again.")
    return result.nats_per_character
