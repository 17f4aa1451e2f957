"""Deployments that meet another one, or whose connection is cut: the device has the old model or the new one, and both verified."""

import os
import subprocess
import sys
import time
from pathlib import Path

from ssh_device import sha256

NAME = "bard.tflite"
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
