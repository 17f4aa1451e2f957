"""Deployments that meet another one, or whose connection is cut: the device has the old model or the new one, and both verified."""

import contextlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from charedge.deployer.device import look
from charedge.deployer.lock import hold
from charedge.deployer.ssh import Target, connect
from charedge.runtime.errors import CharedgeError
from ssh_device import sha256

NAME = "bard.tflite"
PREFIX = ".local/share/charedge"
CUTS = 10


def make_lock(device, holder, process):
    lock = device.prefix / "lock"
    lock.mkdir()
    (lock / "holder").write_text(f"{holder}\n")
    (lock / "process").write_text(f"{process}\n")
    return lock


def stamp(process):
    """A process as the scripts name it: its number, and when it was started."""
    return f"{process} {Path(f'/proc/{process}/stat').read_text().split()[21]}"


def test_a_second_deployment_at_the_same_time_is_refused(installed, deploy):
    device = installed.device
    lock = make_lock(device, "ann@laptop process 7", stamp(os.getpid()))
    try:
        result = deploy(installed.new)
    finally:
        held = (lock / "holder").read_text()
        subprocess.run(["rm", "-r", lock], check=True)
    assert result.status == 1
    assert f"ann@laptop process 7 is deploying to {device.prefix}: wait until it is done" in result.stderr
    assert held == "ann@laptop process 7\n"
    assert sha256(device.models / NAME) == sha256(installed.old)


def test_a_lock_that_was_left_over_is_taken_over(installed, deploy):
    device = installed.device
    lock = make_lock(device, "ann@laptop process 7", "1 0")
    refused = deploy(installed.new)
    assert (refused.status, "is deploying to" in refused.stderr) == (1, True)
    long_ago = time.time() - 600
    os.utime(lock, (long_ago, long_ago))
    result = deploy(installed.new)
    assert result.status == 0, result.stderr
    assert sha256(device.models / NAME) == sha256(installed.new)
    assert not lock.exists()


def test_of_two_deployments_one_succeeds_and_the_other_waits_or_is_refused(installed, start):
    device = installed.device
    running = {file: start("deploy", "device", file) for file in (installed.old, installed.new)}
    results = {file: (*process.communicate(), process.returncode) for file, process in running.items()}
    assert any(status == 0 for _, _, status in results.values())
    for _, stderr, status in results.values():
        assert status == 0 or b"is deploying to" in stderr or b"another deployment has just ended" in stderr, stderr
    assert sha256(device.models / NAME) in (sha256(installed.old), sha256(installed.new))
    assert list(device.prefix.rglob("*.part*")) == []


def test_a_device_under_two_names_is_deployed_to_once_at_a_time(installed):
    with connect(Target("device")) as connection:
        with hold(connection, look(connection, PREFIX, NAME)):
            again = look(connection, PREFIX, NAME)
            with pytest.raises(CharedgeError, match="is deploying to"), hold(connection, again):
                pass
        with hold(connection, again):  # it was given back
            pass


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="no setpriv here: Debian's package util-linux")
def test_a_deployment_that_is_killed_leaves_no_connection(installed, start, tmp_path):
    device, waiting = installed.device, tmp_path / "waiting"
    waiting.touch()
    device.before_commands(f"while [ -e '{waiting}' ]; do sleep 0.1; done")
    process = start("deploy", "device", installed.new)
    while not masters(device):
        assert process.poll() is None
    process.kill()
    process.wait()
    while masters(device):
        pass
    waiting.unlink()
    device.before_commands()


def masters(device):
    """The processes of ssh that hold a connection to a device."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            arguments = file.read_bytes().decode("utf-8", "replace").split("\0")
            found += [file] if "-M" in arguments and str(device.folder / "ssh_config") in arguments else []
    return found


def test_what_a_cut_deployment_left_is_not_installed(installed, deploy):
    """It may be of another model, and was not verified."""
    device = installed.device
    (device.models / f"{NAME}.part").write_bytes(installed.new.read_bytes())
    with device.systemd():
        result = deploy(installed.old, "--service", "ticker")
        assert result.status == 0, result.stderr
        assert deploy(installed.old, "--service", "none").status == 0
    assert sha256(device.models / NAME) == sha256(installed.old)
    assert not (device.models / f"{NAME}.part").exists()


def test_python_files_in_the_home_folder_change_nothing(installed, deploy):
    mine = installed.device.home / "random.py"
    mine.write_text("raise SystemExit('this is mine')")
    try:
        result = deploy(installed.new)
    finally:
        mine.unlink()
    assert result.status == 0, result.stderr


def test_a_benchmark_that_fails_is_said_after_the_model_is_installed(installed, deploy):
    device = installed.device
    (packages,) = (device.prefix / "venv/lib").glob("python3*/site-packages")
    breaking = packages / "sitecustomize.py"
    breaking.write_text("import os, sys\nif 'bench' in sys.orig_argv:\n    os._exit(9)\n")
    try:
        result = deploy(installed.new)
    finally:
        breaking.unlink()
    assert result.status == 1
    assert "the model was installed, but charedge bench ended with status 9: run the command again." in result.stderr
    assert sha256(device.models / NAME) == sha256(installed.new)


def test_a_cut_connection_leaves_the_old_model_or_the_new_one(installed, deploy, cutter):
    device, current, other = installed.device, installed.old, installed.new
    cutter.after(sys.maxsize)
    assert deploy(other, to=("cut",)).status == 0
    whole = cutter.pieces
    for part in range(1, CUTS + 1):
        if sha256(device.models / NAME) == sha256(other):  # the last deployment was complete
            current, other = other, current
        cutter.after(part * whole // (CUTS + 1))
        result = deploy(other, to=("cut",))
        assert sha256(device.models / NAME) in (sha256(current), sha256(other)), part
        assert result.status == 0 or result.stderr.splitlines()[-1].startswith("charedge: cut: "), result.stderr
    result = deploy(installed.old)
    assert result.status == 0, result.stderr
    assert sha256(device.models / NAME) == sha256(installed.old)
    assert not (device.prefix / "lock").exists()
