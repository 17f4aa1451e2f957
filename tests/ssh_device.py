"""A device for the tests: an OpenSSH server on loopback, run by the current user, with a home folder and a PATH of its own."""

from __future__ import annotations

import contextlib
import hashlib
import os
import pwd
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import threading
import zipfile
from collections.abc import Iterator
from importlib.metadata import distribution, version
from pathlib import Path

from conftest import local_addresses

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
SSH = shutil.which("ssh")
STUBS = ("typer", "numpy", "ai-edge-litert", "starlette", "uvicorn", "typing-extensions")
"""What a device's charedge imports, and the extra `serve`."""


SYSTEMCTL = """\
# A stand-in for systemd: runs the command of one unit.
state={state}
case $1 in --*) shift ;; esac
case $1 in show-environment|daemon-reload|enable|reset-failed) exit 0 ;; show) echo 0; exit 0 ;; esac
for unit; do :; done
runs() {{ # not as a process that has ended and was not waited for
    [ -f "$state/$unit.process" ] || return 1
    case $(cut -d ' ' -f 3 "/proc/$(cat "$state/$unit.process")/stat" 2>/dev/null) in ''|Z) return 1 ;; esac
}}
end() {{
    ! runs || kill "$(cat "$state/$unit.process")"
    while runs; do sleep 0.1; done
    rm -f "$state/$unit.process"
}}
case $1 in
disable)
    [ ! -f "$state/kept" ] || exit 1
    end
    ;;
stop) end ;;
is-active)
    if runs; then
        echo active
    else
        echo failed
        exit 3
    fi
    ;;
restart)
    end
    command=$(sed -n 's/^ExecStart=//p' "$HOME/.config/systemd/user/$unit" | sed 's/[$][$]/\\\\$/g; s/%%/%/g')
    eval "set -- $command"
    if grep -q "$(sha256sum <"$6" | cut -c 1-64)" "$state/refused" 2>/dev/null; then
        echo "this model is refused" >>"$state/journal"
        exit 1
    fi
    case $5 in
    generate) for session; do :; done; touch "$session"; set -- sleep 600 ;;
    esac
    env --default-signal setsid "$@" </dev/null >>"$state/journal" 2>&1 &
    echo $! >"$state/$unit.process"
    ;;
esac"""


def make_key(path: Path) -> Path:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(path)], check=True)
    return path


class SshDevice:
    """A device, and this machine's ssh set up for it: `device` is its name, `cut` the way through `Cutter`."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.home, self.bin = folder, folder / "home of the device", folder / "bin"
        self.settings, self.clients = folder / "environment", folder / "clients"
        for made in (self.home, self.bin, self.clients):
            made.mkdir(parents=True)
        self.key, self.host_key = make_key(folder / "key"), make_key(folder / "host_key")
        self.settings.write_text("")
        self.use_python(Path(getattr(sys, "_base_executable", sys.executable)))
        self._write_shell()
        self.port = int(local_addresses(1)[0].rpartition(":")[2])
        self._write_server()
        self._write_client()
        self._server = self._start()

    @property
    def prefix(self) -> Path:
        return self.home / ".local/share/charedge"

    @property
    def models(self) -> Path:
        return self.prefix / "models"

    def use_python(self, python: Path) -> None:
        """Make a Python the `python3` of the device."""
        self.program("python3", f'exec {shlex.quote(str(python))} "$@"')

    def program(self, name: str, script: str) -> Path:
        """Put a program first into the device's PATH."""
        path = self.bin / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return path

    @contextlib.contextmanager
    def replaced(self, name: str, script: str) -> Iterator[None]:
        """Put a program first into the device's PATH for the length of a `with` block."""
        program = self.program(name, script)
        try:
            yield
        finally:
            program.unlink()

    def before_commands(self, script: str = "") -> None:
        """Let the device's shell run a script before every command, until the next call."""
        self.settings.write_text(f"{script}\n")

    @contextlib.contextmanager
    def systemd(self) -> Iterator[Path]:
        """Give the device programs that do what systemd would: run a unit's command, and keep what it prints; their folder."""
        state = self.folder / "systemd"
        state.mkdir()
        self.program("systemctl", SYSTEMCTL.format(state=shlex.quote(str(state))))
        self.program("journalctl", f"cat {shlex.quote(str(state / 'journal'))}")
        self.program("loginctl", "exit 1")
        try:
            yield state
        finally:
            for process in state.glob("*.process"):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(process.read_text()), signal.SIGTERM)
            shutil.rmtree(state)
            shutil.rmtree(self.home / ".config" / "systemd", ignore_errors=True)
            for name in ("systemctl", "journalctl", "loginctl"):
                (self.bin / name).unlink()

    def refuse(self, *models: Path | str) -> None:
        """Let services of these models fail, and no others."""
        (self.folder / "systemd" / "refused").write_text("".join(f"{sha256(Path(model))}\n" for model in models))

    def allow(self, key: Path) -> None:
        (self.folder / "authorized_keys").write_text(key.with_suffix(".pub").read_text())

    def client(self, name: str, **settings: object) -> None:
        """Set up a name for this machine's ssh, with settings that come before the usual ones."""
        lines = "".join(f"    {key} {value}\n" for key, value in settings.items())
        (self.clients / name).write_text(f"Host {name}\n{lines}")

    def stop(self) -> None:
        self._server.terminate()
        self._server.wait()

    def _write_shell(self) -> None:
        """What the server runs for every command."""
        shell = f"""#!/bin/sh
unset PYTHONPATH VIRTUAL_ENV XDG_CONFIG_HOME XDG_DATA_HOME
export HOME="${{CHAREDGE_HOME:-{self.home}}}" PIP_CONFIG_FILE=/dev/null
export PATH={shlex.quote(str(self.bin))}:/usr/local/bin:/usr/bin:/bin
. {shlex.quote(str(self.settings))}
cd "$HOME" && exec sh -c "$SSH_ORIGINAL_COMMAND"
"""
        (self.folder / "shell").write_text(shell)
        (self.folder / "shell").chmod(0o755)

    def _write_server(self) -> None:
        self.allow(self.key)
        (self.folder / "sshd_config").write_text(f"""\
ListenAddress 127.0.0.1
Port {self.port}
HostKey "{self.host_key}"
PidFile none
AuthorizedKeysFile "{self.folder}/authorized_keys"
StrictModes no
AcceptEnv CHAREDGE_HOME
SetEnv HOME="{self.home}"
PasswordAuthentication yes
KbdInteractiveAuthentication no
PermitRootLogin yes
UsePAM no
MaxStartups 100
MaxSessions 100
ForceCommand "{self.folder}/shell"
""")

    def _write_client(self) -> None:
        self.know_host()
        (self.folder / "ssh_config").write_text(f"""\
Include "{self.clients}/*"
Host *
    HostName 127.0.0.1
    User {pwd.getpwuid(os.getuid()).pw_name}
    Port {self.port}
    IdentityFile "{self.key}"
    IdentitiesOnly yes
    IdentityAgent none
    UserKnownHostsFile "{self.folder}/known_hosts"
    GlobalKnownHostsFile /dev/null
    HostKeyAlias device
    CheckHostIP no
    StrictHostKeyChecking yes
""")
        (self.folder / "client").mkdir()
        ssh = self.folder / "client" / "ssh"
        ssh.write_text(f'#!/bin/sh\nexec {SSH} -F {shlex.quote(str(self.folder / "ssh_config"))} "$@"\n')
        ssh.chmod(0o755)

    def know_host(self, key: Path | None = None) -> None:
        """Make this machine know the device's host key, or another key in its place."""
        public = (key or self.host_key).with_suffix(".pub").read_text()
        (self.folder / "known_hosts").write_text(f"device {public}")

    def _start(self) -> subprocess.Popen[bytes]:
        assert SSHD is not None
        if os.getuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        with (self.folder / "sshd.log").open("wb") as log:
            server = subprocess.Popen([SSHD, "-D", "-e", "-f", str(self.folder / "sshd_config")], stderr=log)
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port)).close()
                return server
            except ConnectionRefusedError:
                assert server.poll() is None, (self.folder / "sshd.log").read_text()


class Cutter:
    """A relay in front of a device's server, which cuts the connection after some pieces of data have gone either way."""

    def __init__(self, port: int) -> None:
        self._server_port, self.pieces, self.most = port, 0, sys.maxsize
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def after(self, pieces: int) -> None:
        """Cut the next connection after this number of pieces."""
        self.pieces, self.most = 0, pieces

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._server_port))
            for one, other in ((client, server), (server, client)):
                threading.Thread(target=self._relay, args=(one, other), daemon=True).start()

    def _relay(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(32768):
                self.pieces += 1
                if self.pieces > self.most:
                    break
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


def make_stub_wheels(folder: Path) -> Path:
    """Wheels that stand for what charedge requires: they have nothing in them but the way to what is installed here."""
    folder.mkdir()
    places = {str(distribution(name).locate_file("")) for name in STUBS} | {sysconfig.get_path("purelib")}
    for name in STUBS:
        known, installed = name.replace("-", "_"), version(name)
        information = f"{known}-{installed}.dist-info"
        with zipfile.ZipFile(folder / f"{known}-{installed}-py3-none-any.whl", "w") as archive:
            archive.writestr(f"{information}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {installed}\n")
            archive.writestr(f"{information}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            archive.writestr(f"{known}_is_here.pth", "".join(f"{place}\n" for place in sorted(places)))
            archive.writestr(f"{information}/RECORD", "")
    return folder


def workstation_environment(device: SshDevice, wheels: Path | None = None) -> dict[str, str]:
    """This machine's environment, whose ssh knows the device, and whose pip takes the stub wheels if there are any."""
    variables = {"PATH": f"{device.folder / 'client'}:{os.environ['PATH']}", "XDG_CACHE_HOME": str(device.folder / "cache")}
    if wheels is not None:
        variables |= {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels)}
    return variables


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
