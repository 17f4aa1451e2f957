"""One connection to a device, made by the system's own ssh, through which scripts in POSIX sh are run.

A process of ssh, the master, holds the connection; every script is a channel of it, so that a password is asked for at most once.
No name is ever part of a command line: what the device's login shell gets is a constant that reads the script from stdin, and a
script's arguments are quoted in the script itself. A script that arrived in part is not run.
"""

from __future__ import annotations

import hashlib
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from subprocess import PIPE

from ..runtime.errors import CharedgeError, InvalidOption

CONNECT_SECONDS = 15
ALIVE_SECONDS, ALIVE_COUNT = 10, 3
"""A connection whose other end is silent for 30 seconds is given up."""
END_SECONDS = 0.5
SSH_FAILED = 255
"""The exit status of ssh itself; scripts of ours end with others."""
READY = b"ready\n"
BLOCK = 1 << 16

ADDRESS = re.compile(r"([^-\s\x00-\x1f\x7f@][^\s\x00-\x1f\x7f]*@)?[^-\s\x00-\x1f\x7f@][^\s\x00-\x1f\x7f@]*")
RUN_STDIN = "sh -c 'eval \"$(dd bs=1 count={} 2>/dev/null)\"'"
"""Runs the first bytes of stdin, in every login shell; the rest of stdin is the script's."""
REASONS = (
    (
        "HOST IDENTIFICATION HAS CHANGED",
        "its host key is not the known one: if the device was installed anew, forget the old key with `ssh-keygen -R {host}`, "
        "otherwise do not connect, because another machine may answer in its place",
    ),
    ("Host key verification failed", "its host key is unknown: connect once with `ssh {address}` and accept the key"),
    ("Permission denied", "it does not let you in ({line}): check the user, the key and `identity`"),
    ("Could not resolve hostname", "there is no host of that name ({line}): check the name, or give the address"),
    ("Too many authentication failures", "it does not let you in ({line}): choose one key with `identity`"),
)
"""What ssh prints when it cannot connect, and our end of the sentence."""


class CannotConnect(CharedgeError):
    """ssh cannot connect."""


class Disconnected(CharedgeError):
    """The connection was cut. What the device was doing then is complete or undone; nothing is half done."""


class Failed(CharedgeError):
    """A script on the device ended with an error.

    Attributes:
        status: its exit status.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Target:
    """A device, and how ssh reaches it."""

    address: str
    """`[USER@]HOST`, or a name of ssh's configuration."""
    port: int | None = None
    identity: Path | None = None
    """File of the private key."""
    jump: str | None = None
    """`[USER@]HOST[:PORT]` of a machine between."""

    def __post_init__(self) -> None:
        """
        Raises:
            InvalidOption: a field could be taken for an option of ssh, or has no value that ssh takes.
        """
        for field, value in (("target", self.address), ("jump", self.jump)):
            if value is not None and not ADDRESS.fullmatch(value):
                raise InvalidOption(field, f"{value!r} must be USER@HOST, without spaces and without a dash in front.")
        if self.port is not None and not 1 <= self.port <= 65535:
            raise InvalidOption("ssh_port", f"{self.port} must be from 1 to 65535.")
        if self.identity is not None and not self.identity.is_file():
            raise InvalidOption("identity", f"{self.identity} is not a file: give the file of a private key.")

    @property
    def host(self) -> str:
        return self.address.rpartition("@")[2]

    @property
    def options(self) -> list[str]:
        """The options of ssh."""
        options = [] if self.port is None else ["-p", str(self.port)]
        options += [] if self.identity is None else ["-i", str(self.identity)]
        return options + ([] if self.jump is None else ["-J", self.jump])


class Connection:
    """An open connection; made by `connect`."""

    def __init__(self, target: Target, socket: Path) -> None:
        self.target, self._socket = target, socket

    def run(self, script: str, *arguments: object, data: Path | None = None, sent: Callable[[int], object] | None = None) -> str:
        """Run a script on the device, with `common.sh` in front of it.

        Args:
            script: name of a file in `device/` without `.sh`, or several with `+` in between.
            arguments: the script's `$1`, `$2` and so on.
            data: a file that becomes the script's stdin.
            sent: called with the number of bytes of `data` that were sent so far.

        Returns:
            Its stdout.

        Raises:
            Failed: its exit status was not 0.
            Disconnected: the connection was cut.
        """
        program = _program(script, arguments)
        with subprocess.Popen(self._command(program), stdin=PIPE, stdout=PIPE, stderr=PIPE) as process:
            try:
                _write(process, program, data, sent or (lambda done: None))
                stdout, stderr = (stream.decode("utf-8", "backslashreplace") for stream in process.communicate())
            except BaseException:
                process.kill()
                raise
        if process.returncode == SSH_FAILED:
            raise Disconnected("the connection was cut: run the command again, which continues.")
        if process.returncode:
            reason = _last_line(stderr) or f"a script ended with status {process.returncode}"
            raise Failed(f"{reason}.", process.returncode)
        return stdout

    def follow(self, script: str, *arguments: object) -> int:
        """Run a script whose output goes to stdout as it comes, until it ends or Ctrl-C; returns its exit status."""
        program = _program(script, arguments)
        with subprocess.Popen(self._command(program), stdin=PIPE) as process:
            try:
                _write(process, program, None, lambda done: None)
                return process.wait()
            except BaseException:
                process.kill()
                raise

    def _command(self, program: bytes) -> list[str]:
        """The command that runs a program, which is the first bytes of its stdin, on the device."""
        # Without the master ssh would connect again; a proxy that fails at once keeps it from that.
        settings = ("ControlMaster=no", "ProxyCommand=false", "RemoteCommand=none", "RequestTTY=no", "LogLevel=ERROR")
        options = [part for setting in settings for part in ("-o", setting)]
        return ["ssh", "-T", "-S", str(self._socket), *options, "--", self.target.address, RUN_STDIN.format(len(program))]


@contextmanager
def connect(target: Target, interactive: bool = True) -> Iterator[Connection]:
    """Connect to a device until the end of the block.

    Args:
        target: the device.
        interactive: whether ssh may ask for a password or whether to accept a host key.

    Raises:
        CannotConnect: in the words of ssh.
    """
    if shutil.which("ssh") is None:
        raise CharedgeError("there is no ssh on this machine: install OpenSSH's client (Debian: `apt install openssh-client`).")
    with tempfile.TemporaryDirectory(prefix="charedge-", dir=_short_folder()) as folder:
        socket, errors = Path(folder) / "s", Path(folder) / "errors"
        settings = {
            "ControlPersist": "no",
            "ConnectTimeout": CONNECT_SECONDS,
            "ServerAliveInterval": ALIVE_SECONDS,
            "ServerAliveCountMax": ALIVE_COUNT,
            "BatchMode": "no" if interactive else "yes",
            "PermitLocalCommand": "yes",
            "LocalCommand": f"echo {READY.decode().strip()}",  # run once the connection and the master's socket are there
            "RemoteCommand": "none",
            "ClearAllForwardings": "yes",
            "ForwardAgent": "no",
            "ForwardX11": "no",
        }
        options = [part for key, value in settings.items() for part in ("-o", f"{key}={value}")]
        command = [*_ending_with_us(), "ssh", "-M", "-N", "-T", "-S", str(socket), *options, *target.options, "--", target.address]
        with errors.open("wb") as stderr:
            master = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=stderr)
        try:
            if _read_ready(master) != READY:
                raise CannotConnect(f"{_why_not(target, errors.read_text('utf-8', 'backslashreplace'))}.")
            yield Connection(target, socket)
        finally:
            _end(master)


def _ending_with_us() -> list[str]:
    """In front of a command, where this machine has it: ends the command with the thread that starts it, even if that is killed."""
    return ["setpriv", "--pdeathsig", "TERM"] if shutil.which("setpriv") else []


def _read_ready(master: subprocess.Popen[bytes]) -> bytes:
    """Wait until a master is connected, and return what it prints then; nothing if it cannot connect."""
    assert master.stdout is not None
    return next((line for line in master.stdout if line == READY), b"")  # a shell's start may print something before it


def _end(master: subprocess.Popen[bytes]) -> None:
    """End a master. It may miss a signal that comes just before it waits for its server, and then waits for seconds."""
    with master:
        master.terminate()
        try:
            master.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            master.kill()


def sha256_of(file: Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits."""
    digest = hashlib.sha256()
    with file.open("rb") as opened:
        while block := opened.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _program(script: str, arguments: tuple[object, ...]) -> bytes:
    """A script with its arguments, in braces: without the last one, which is the last byte, sh runs none of it."""
    folder = files(__name__.rpartition(".")[0]) / "device"
    parts = [(folder / f"{name}.sh").read_text(encoding="utf-8") for name in ("common", *script.split("+"))]
    given = shlex.join(map(str, arguments))
    return "\n".join(["{", f"set -- {given}", *parts, "exit 0", "}"]).encode("utf-8", "surrogateescape")


def _write(process: subprocess.Popen[bytes], program: bytes, data: Path | None, sent: Callable[[int], object]) -> None:
    """Write a program and its data to a process, and close its stdin; a process that has ended already is left to `communicate`."""
    assert process.stdin is not None
    done = 0
    with suppress(BrokenPipeError):
        process.stdin.write(program)
        if data is not None:
            with data.open("rb") as file:
                while block := file.read(BLOCK):
                    process.stdin.write(block)
                    done += len(block)
                    sent(done)
    with suppress(BrokenPipeError):
        process.stdin.close()
    process.stdin = None  # `communicate` would flush it


def _why_not(target: Target, errors: str) -> str:
    """The end of a sentence, from what ssh printed."""
    line = _last_line(errors) or "ssh ended without a word"
    for printed, reason in REASONS:
        if printed in errors:
            return reason.format(host=target.host, address=target.address, line=line)
    return f"ssh cannot connect ({line}): check that the device is on and that `ssh {target.address}` works"


def _last_line(text: str) -> str:
    """The last line that says something, without the name of the program that said it, and without its full stop."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return re.sub(r"^(charedge|ssh|sh|ERROR): ", "", lines[-1]).rstrip(".") if lines else ""


def _short_folder() -> str | None:
    """A folder for the socket, whose path may have a hundred bytes; None is the system's own."""
    return None if len(tempfile.gettempdir()) <= 40 else "/tmp"
