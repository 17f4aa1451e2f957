"""`charedge deploy`: its options, and what it prints."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import Annotated

import typer

from ..console import JSON, PLAIN, print_json, say
from ..display import Display
from ..runtime.bundled import find_model
from ..runtime.errors import CharedgeError, InvalidOption
from ..runtime.progress import Progress, Report
from .deploy import PREFIX, Options, deploy, prepare, roll_back
from .many import on_all, read_targets
from .report import Deployment, table
from .service import DEFAULT_PORT, KINDS
from .ssh import Connection, Target

app = typer.Typer(**PLAIN)


@app.callback()
def group() -> None:
    """Keeps `deploy` a command of a group."""


@app.command("deploy")
def deploy_command(
    arguments: Annotated[
        list[str],
        typer.Argument(
            metavar="TARGET... MODEL",
            help="Devices as [USER@]HOST or names of ssh's configuration, then a file made by `charedge convert`.",
            show_default=False,
        ),
    ],
    targets: Annotated[
        Path | None, typer.Option(metavar="FILE", help="More devices, one per line of FILE.  [default: none]")
    ] = None,
    ssh_port: Annotated[
        int | None, typer.Option("--ssh-port", "-p", metavar="PORT", help="Port of ssh.  [default: ssh's own]")
    ] = None,
    identity: Annotated[
        Path | None, typer.Option("--identity", "-i", metavar="FILE", help="Private key for ssh.  [default: ssh's own]")
    ] = None,
    jump: Annotated[
        str | None, typer.Option("--jump", "-J", metavar="HOST", help="Connect through this machine.  [default: ssh's own]")
    ] = None,
    prefix: Annotated[str, typer.Option(metavar="DIR", help="Folder on the device.")] = PREFIX,
    service: Annotated[
        str | None,
        typer.Option(
            metavar="|".join([*KINDS, "none"]),
            help="Run `charedge serve`, or write a text at reading speed into the journal, as a systemd service; none removes it.  "
            "[default: leave it unchanged]",
        ),
    ] = None,
    service_port: Annotated[
        int, typer.Option(metavar="PORT", help="Port of --service serve on the device's 127.0.0.1.")
    ] = DEFAULT_PORT,
    system: Annotated[
        bool, typer.Option("--system", help="Install --service as a system service, with sudo, instead of a user service.")
    ] = False,
    follow: Annotated[bool, typer.Option("--follow", help="Show the service's log at the end, until Ctrl-C.")] = False,
    offline: Annotated[
        bool, typer.Option("--offline", help="Download the wheels on this machine and copy them, even if the device has a network.")
    ] = False,
    rollback: Annotated[bool, typer.Option("--rollback", help="Restore the previous MODEL of the device.")] = False,
    sign: Annotated[
        Path | None, typer.Option(metavar="KEY", help="Sign MODEL with this ssh key, as MODEL.sig.  [default: none]")
    ] = None,
    verify_key: Annotated[
        Path | None,
        typer.Option(metavar="KEY.pub", help="Refuse MODEL, on both machines, unless this key has signed it.  [default: none]"),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Look at the devices, and print what would be done.")] = False,
    as_json: JSON = False,
) -> None:
    """Install charedge and a model on a device over ssh, or update them."""
    *addresses, model = arguments
    addresses += [] if targets is None else read_targets(targets)
    if not addresses:
        raise InvalidOption("target", "is missing: give a device, as in `charedge deploy pi@raspberrypi.local bard.tflite`.")
    devices = [Target(address, ssh_port, identity, jump) for address in addresses]
    options = Options(prefix, service, service_port, system, offline, verify_key, dry_run)
    if follow and (len(devices) > 1 or as_json):
        raise InvalidOption("follow", "shows the log of one device, as text: leave out `json` and the other devices.")
    given = {"service": service, "offline": offline, "sign": sign, "verify_key": verify_key}
    if rollback and (unused := [field for field, value in given.items() if value]):
        raise InvalidOption(unused[0], "has no effect with `rollback`: leave one of them out.")

    with Display() as display:
        progress = _messages_only(display) if len(devices) > 1 else display
        after = _follow if follow else None
        if rollback:
            path = find_model(model)
            results = on_all(
                devices, lambda target, may_ask: roll_back(target, path.name, options, progress, after, may_ask), _asks()
            )
        else:
            local = prepare(find_model(model), sign, verify_key)
            results = on_all(devices, lambda target, may_ask: deploy(target, local, options, progress, after, may_ask), _asks())
    if as_json:
        print_json({"devices": [_fields(address, result) for address, result in zip(addresses, results, strict=True)]})
    _show(results, as_json, shown=follow)


def _show(results: list[Deployment | CharedgeError], as_json: bool, shown: bool) -> None:
    """Print the results: a table of one device, a line for each of several; the first error ends the command.

    Raises:
        CharedgeError: a device failed.
    """
    for result in results:
        if isinstance(result, CharedgeError):
            if len(results) > 1:
                say(result)
        elif not as_json:
            for warning in result.warnings:
                say(f"warning: {result.target}: {warning}")
            if len(results) > 1:
                print(_line(result))
            elif not shown:
                _print(result)
    failed = [result for result in results if isinstance(result, CharedgeError)]
    if len(results) == 1 and failed:
        raise failed[0]
    if failed:
        raise CharedgeError(f"{len(failed)} of {len(results)} devices failed: see the lines above.")


def _print(result: Deployment) -> None:
    if result.dry_run:
        print(f"{result.target}: " + ("to do:" if result.done else "nothing to do"))
        print(*(f"- {step}" for step in result.done), sep="\n" if result.done else "", end="\n" if result.done else "")
        return
    if not result.done:
        print(f"{result.target}: unchanged")
    print(*table(result), sep="\n")


def _line(result: Deployment) -> str:
    """A device of several."""
    if result.dry_run:
        return f"{result.target}: {'; '.join(result.done) or 'nothing to do'}"
    figures = result.there
    measured = f", {figures.microseconds_per_character:,.1f} us per character" if figures else ""
    return f"{result.target}: {'deployed' if result.done else 'unchanged'}, {result.model} verified{measured}"


def _fields(address: str, result: Deployment | CharedgeError) -> dict[str, object]:
    if isinstance(result, CharedgeError):
        return {"target": address, "status": "failed", "error": str(result)}
    return result.to_dict()


def _follow(connection: Connection, result: Deployment) -> None:
    """Print the result, and then the service's log until Ctrl-C.

    Raises:
        CharedgeError: the model has no service.
    """
    _print(result)
    sys.stdout.flush()
    if result.service is None:
        raise CharedgeError(f"{result.model} has no service to follow: give `service`.")
    connection.follow("follow", *result.service)


def _messages_only(display: Display) -> Progress:
    """Reports of several threads: the messages, one at a time; bars would take each other's line."""
    lock = threading.Lock()

    def report(report: Report) -> None:
        if report.message:
            with lock:
                display(report)

    return report


def _asks() -> bool:
    """Whether there is a terminal on which ssh can ask."""
    return sys.stdin.isatty()
