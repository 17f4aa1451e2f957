"""Services that `charedge deploy` leaves on a device. A stand-in for systemd runs the unit's command: the server is real."""

import http.server
import json
import os
import pwd
import re
import shutil
import subprocess
import threading
import urllib.request
from functools import partial
from pathlib import Path

import pytest
from charedge.deployer.service import Wanted, quoted, unit
from conftest import local_addresses
from ssh_device import sha256

NAME = "bard.tflite"
PLACE = ".config/systemd/user"


@pytest.fixture
def systemd(ssh_device):
    """The folder of the device's stand-in for systemd."""
    with ssh_device.systemd() as state:
        yield state


@pytest.fixture
def index(tmp_path, stub_wheels):
    """A package index that a device can reach, of the stub wheels; its address."""
    for wheel in stub_wheels.glob("*.whl"):
        folder = tmp_path / "simple" / wheel.name.split("-")[0].replace("_", "-")
        folder.mkdir(parents=True)
        shutil.copy(wheel, folder)
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path)
    handler.log_message = lambda *arguments: None  # type: ignore[attr-defined]
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/simple"
    server.shutdown()


def served(port):
    """The models of the server on a port."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/models") as answer:
        return json.load(answer)["data"]


def test_a_server_is_installed_from_the_network_updated_and_brought_back(installed, deploy, index, systemd):
    device, port = installed.device, local_addresses(1)[0].rpartition(":")[2]
    device.before_commands(f"export PIP_INDEX_URL={index}")
    (device.prefix / "venv").unlink()
    first = deploy(installed.old, "--service", "serve", "--service-port", port)
    assert first.status == 0, first.stderr
    assert "install charedge from its own network" in first.stderr
    lingers = Path("/var/lib/systemd/linger", pwd.getpwuid(os.getuid()).pw_name).exists()
    assert ("sudo loginctl enable-linger" in first.stderr) != lingers
    assert len(served(port)) == 1
    process = (systemd / "charedge-serve.service.process").read_text()

    assert "unchanged" in deploy(installed.old, "--service", "serve", "--service-port", port).stdout
    assert (systemd / "charedge-serve.service.process").read_text() == process

    device.before_commands("export http_proxy=http://127.0.0.1:9")  # that does not answer
    updated = deploy(installed.new)  # whoever has a service need not name it again
    assert updated.status == 0, updated.stderr
    assert "restart charedge-serve" in updated.stderr
    assert (systemd / "charedge-serve.service.process").read_text() != process
    assert len(served(port)) == 1

    device.refuse(installed.old)
    failed = deploy(installed.old)
    assert failed.status == 1
    assert "the service does not work (this model is refused): the previous model was restored" in failed.stderr
    assert sha256(device.models / NAME) == sha256(installed.new)
    assert len(served(port)) == 1

    (systemd / "kept").touch()
    kept = deploy(installed.new, "--service", "none")
    assert (kept.status, "charedge-serve.service, a service of the user, cannot be removed" in kept.stderr) == (1, True)
    assert len(served(port)) == 1
    (systemd / "kept").unlink()
    removed = deploy(installed.new, "--service", "none")
    assert removed.status == 0, removed.stderr
    assert not (device.home / PLACE / "charedge-serve.service").exists()
    with pytest.raises(OSError, match="refused"):
        served(port)


def test_a_ticker_follows_and_a_rollback_restarts_it_with_its_own_session(installed, deploy, process, systemd):
    device = installed.device
    assert deploy(installed.old, "--service", "ticker").status == 0
    place = device.home / PLACE / "charedge-ticker.service"
    before = place.read_text()
    assert f"{NAME.removesuffix('.tflite')}-{sha256(installed.old)[:12]}.session" in before
    device.refuse(installed.new)
    failed = deploy(installed.new)
    assert failed.stderr.endswith("(this model is refused): the previous model was restored.\n")
    assert place.read_text() == before
    device.refuse()
    assert deploy(installed.new).status == 0
    assert sha256(installed.new)[:12] in place.read_text()
    assert deploy(NAME, "--rollback").status == 0
    assert place.read_text() == before

    (systemd / "journal").write_text("To be, or not to be\n")
    result = process("deploy", "device", installed.old, "--follow")
    assert result.returncode == 0, result.stderr
    assert "device: unchanged\n" in result.stdout
    assert result.stdout.endswith("To be, or not to be\n")
    assert deploy(installed.old, "--service", "none").status == 0


def test_the_first_service_that_does_not_come_is_removed_again(installed, deploy, systemd):
    device = installed.device
    device.refuse(installed.new)
    result = deploy(installed.new, "--service", "ticker")
    assert result.status == 1
    assert "the previous model was restored" in result.stderr
    assert sha256(device.models / NAME) == sha256(installed.old)
    assert not (device.home / PLACE / "charedge-ticker.service").exists()


def test_a_server_whose_port_another_program_has_is_not_taken_for_it(installed, deploy, systemd):
    class Healthy(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()

        def log_message(self, format, *args):
            pass

    device, other = installed.device, http.server.ThreadingHTTPServer(("127.0.0.1", 0), Healthy)
    threading.Thread(target=other.serve_forever, daemon=True).start()
    try:
        result = deploy(installed.new, "--service", "serve", "--service-port", other.server_port)
    finally:
        other.shutdown()
        other.server_close()
    assert (result.status, f"another program answers at http://127.0.0.1:{other.server_port}/health" in result.stderr) == (1, True)
    assert sha256(device.models / NAME) == sha256(installed.old)
    assert not (device.home / PLACE / "charedge-serve.service").exists()


def test_without_systemd_a_service_is_refused(installed, deploy):
    device = installed.device
    with device.replaced("systemctl", "echo 'Failed to connect to bus: no medium found' >&2; exit 1"):
        result = deploy(installed.new, "--service", "serve")
    assert result.status == 1
    assert "it cannot run a user service (Failed to connect to bus: no medium found): leave out --service." in result.stderr
    assert sha256(device.models / NAME) == sha256(installed.old)


def test_options_of_services_are_checked_before_a_device_is_asked(deploy, model):
    for options, message in (
        (("--service", "daemon"), "--service daemon is unknown: choose serve, ticker or none."),
        (("--service", "serve", "--service-port", "0"), "--service-port 0 must be from 1 to 65535."),
        (("--system",), "--system has no effect without --service serve or ticker: leave it out."),
        (("--rollback", "--offline"), "--offline has no effect with --rollback: leave one of them out."),
        (("--follow", "--json"), "--follow shows the log of one device, as text"),
    ):
        result = deploy(model.path, *options, to=("nowhere.invalid",))
        assert result.status == 2
        assert message in result.stderr


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze here: Debian's package systemd")
@pytest.mark.parametrize("kind", ["serve", "ticker"])
@pytest.mark.parametrize("scope", ["user", "system"])
def test_systemd_finds_nothing_wrong_with_a_unit(kind, scope, tmp_path):
    prefix = tmp_path / 'a folder\'s "name" 100% $HOME'
    (prefix / "venv" / "bin").mkdir(parents=True)
    (prefix / "sessions").mkdir()
    (prefix / "venv" / "bin" / "python").symlink_to(shutil.which("true"))
    file = tmp_path / f"charedge-{kind}.service"
    file.write_text(unit(Wanted(kind, scope), str(prefix), "root", "it's.tflite", "0" * 64) + "\n")
    command = ["systemd-analyze", "verify", "--man=no", *(["--user"] if scope == "user" else []), file]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    found = [line for line in result.stderr.splitlines() if file.name in line]
    assert found == []
    if scope == "system":
        judged = subprocess.run(
            ["systemd-analyze", "security", "--offline=true", "--threshold=20", file], capture_output=True, text=True, check=False
        )
        assert judged.returncode == 0, judged.stdout[-300:]


def test_arguments_of_units_are_quoted_as_systemd_reads_them():
    for argument in ("plain", "a b", 'say "it"', "it's", "back\\slash", "100%", "$HOME ${X}", ""):
        text = quoted(argument)
        inner = re.sub(r"\\(.)", r"\1", text[1:-1]) if text.startswith('"') else text
        assert inner.replace("%%", "%").replace("$$", "$") == argument
        assert text.startswith('"') or " " not in text
