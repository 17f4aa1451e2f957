"""`charedge deploy`, from a device with nothing on it to updates, rollbacks and refusals."""

import json
import shutil
import subprocess
from pathlib import Path

from ssh_device import make_key, sha256

NAME = "bard.tflite"


def test_a_dry_run_says_what_is_to_be_done_and_does_nothing(deploy, ssh_device, model, tmp_path):
    file = shutil.copy(model.path, tmp_path / NAME)
    result = deploy(file, "--dry-run", "--prefix", "~/another place")
    assert result.status == 0, result.stderr
    assert result.stdout.splitlines()[0] == "device: to do:"
    assert "install charedge with Python" in result.stdout
    assert f"copy {NAME}, {Path(file).stat().st_size:,} bytes" in result.stdout
    assert not (ssh_device.home / "another place").exists()


def test_the_first_deployment_installs_and_the_second_changes_nothing(installed, deploy):
    device = installed.device
    assert sha256(device.models / NAME) == sha256(installed.old)
    program = device.prefix / "venv" / "bin" / "charedge"
    text = [program, "generate", device.models / NAME, "--length", "20", "--seed", "1", "--no-echo"]
    assert len(subprocess.run(text, capture_output=True, text=True, check=True).stdout) == 20

    before = {path: path.stat().st_mtime_ns for path in device.prefix.rglob("*") if "__pycache__" not in path.parts}
    second = deploy(installed.old, "--json")
    assert second.status == 0, second.stderr
    (fields,) = json.loads(second.stdout)["devices"]
    assert (fields["status"], fields["done"]) == ("unchanged", [])
    assert fields["there"]["nats_per_character"] == fields["here"]["nats_per_character"]
    assert fields["there"]["microseconds_per_character"] > 0
    assert {path: path.stat().st_mtime_ns for path in device.prefix.rglob("*") if "__pycache__" not in path.parts} == before


def test_the_table_has_the_figures_there_and_here_and_its_last_line_generates(installed, deploy):
    result = deploy(installed.old)
    lines = result.stdout.splitlines()
    assert lines[0] == "device: unchanged"
    assert lines[2].split() == ["there", "here"]
    assert [line.split("  ")[0] for line in lines[3:8]] == ["machine", "interpreter", "verified", "per character", "peak memory"]
    command = lines[-1].removeprefix("next: ")
    written = subprocess.run(f"{command} --length 30 --seed 1", shell=True, capture_output=True, text=True, check=False)
    assert len(written.stdout) == 30, written.stderr


def test_an_update_keeps_the_previous_model_and_a_rollback_brings_it_back(installed, deploy):
    device, kept = installed.device, installed.device.models / "bard.previous.tflite"
    assert deploy(installed.new).status == 0
    assert (sha256(device.models / NAME), sha256(kept)) == (sha256(installed.new), sha256(installed.old))
    back = deploy(NAME, "--rollback")
    assert back.status == 0, back.stderr
    assert (sha256(device.models / NAME), sha256(kept)) == (sha256(installed.old), sha256(installed.new))
    assert [path.name for path in device.prefix.rglob("*.part*")] == []


def test_without_a_previous_model_a_rollback_is_refused(installed, deploy):
    result = deploy(NAME, "--rollback")
    assert (result.status, result.stdout) == (1, "")
    assert result.stderr.endswith(f"there is no previous {NAME} in {installed.device.prefix}: nothing to go back to.\n")


def test_a_model_that_does_not_work_there_leaves_the_old_one(installed, deploy, tmp_path):
    (tmp_path / "broken" / "ai_edge_litert").mkdir(parents=True)
    (tmp_path / "broken" / "ai_edge_litert" / "__init__.py").write_text("raise ImportError('no such processor')")
    installed.device.before_commands(f"export PYTHONPATH='{tmp_path}/broken'")
    result = deploy(installed.new)
    assert result.status == 1
    assert "ai-edge-litert" in result.stderr.splitlines()[-1]
    assert sha256(installed.device.models / NAME) == sha256(installed.old)
    assert not (installed.device.models / f"{NAME}.part").exists()


def test_a_damaged_model_is_refused_here_before_a_device_is_asked(deploy, model, tmp_path):
    file = tmp_path / NAME
    content = bytearray(model.path.read_bytes())
    content[len(content) // 4] ^= 1
    file.write_bytes(content)
    result = deploy(file, to=("nowhere.invalid",))
    assert result.status == 1
    assert f"{file} is damaged" in result.stderr
    assert "nowhere" not in result.stderr


def test_a_copy_that_arrives_damaged_is_refused(installed, deploy):
    device = installed.device
    with device.replaced("cat", 'if [ $# = 0 ]; then /bin/cat | tr a b; else exec /bin/cat "$@"; fi'):
        result = deploy(installed.new)
    assert result.status == 1
    assert "is not what was sent: deploy again" in result.stderr
    assert sha256(device.models / NAME) == sha256(installed.old)


def test_a_disk_with_too_little_space_is_refused_before_anything_changes(installed, deploy):
    device = installed.device
    with device.replaced("df", "echo head; echo /dev/fake 100 90 10 90% /"):
        result = deploy(installed.new)
    assert result.status == 1
    assert "free some space there" in result.stderr
    assert sha256(device.models / NAME) == sha256(installed.old)
    assert not (device.prefix / "lock").exists()


def test_a_disk_that_becomes_full_leaves_the_old_model(installed, deploy):
    device = installed.device
    device.before_commands("ulimit -f 8; trap '' XFSZ")  # no file of more than four kilobytes
    result = deploy(installed.new)
    assert result.status == 1
    assert "cannot be written (File too large): free some space" in result.stderr
    assert sha256(device.models / NAME) == sha256(installed.old)
    assert list(device.models.glob("*.part")) == []
    device.before_commands()
    assert deploy(installed.new).status == 0
    assert sha256(device.models / NAME) == sha256(installed.new)


def test_no_file_name_is_taken_for_an_option_or_a_command(installed, deploy, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    device, name = installed.device, '-rf it\'s "$(touch injected)" `touch injected` é;&.tflite'
    shutil.copy(installed.old, tmp_path / name)
    result = deploy("--", name)
    assert result.status == 0, result.stderr
    assert sha256(device.models / name) == sha256(installed.old)
    assert list(device.folder.rglob("injected")) == []
    command = result.stdout.splitlines()[-1].removeprefix("next: ")
    written = subprocess.run(f"{command} --length 30 --seed 1", shell=True, capture_output=True, text=True, check=False)
    assert len(written.stdout) == 30, written.stderr


def test_targets_and_names_that_ssh_or_the_device_would_misread_are_refused(deploy, model, tmp_path):
    for target in ("-oProxyCommand=touch x", "pi@-oProxyCommand=x", "pi@host name", ""):
        result = deploy(model.path, to=("--", target))
        assert result.status == 2, target
        assert "must be USER@HOST" in result.stderr
    result = deploy(model.path, "--jump", "-x")
    assert (result.status, "--jump '-x' must be" in result.stderr) == (2, True)
    for name in ("a\nb.tflite", "model.bin", "bard.previous.tflite"):
        result = deploy(shutil.copy(model.path, tmp_path / name))
        assert result.status == 2, name
        assert "MODEL" in result.stderr
    result = deploy(model.path, "--prefix", "~/")
    assert (result.status, "--prefix '~/' must be a folder of its own" in result.stderr) == (2, True)


def test_without_a_device_the_line_to_type_is_shown(deploy, model):
    result = deploy(model.path, to=())
    assert result.status == 2
    assert "`charedge deploy pi@raspberrypi.local bard.tflite`" in result.stderr


def test_a_changed_host_key_is_refused(deploy, ssh_device, model, tmp_path):
    ssh_device.know_host(make_key(tmp_path / "another"))
    try:
        result = deploy(model.path, to=("device",))
    finally:
        ssh_device.know_host()
    assert result.status == 1
    assert "its host key is not the known one" in result.stderr
    assert "ssh-keygen -R device" in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_wrong_key_and_a_wrong_password_are_refused(deploy, ssh_device, model, tmp_path, monkeypatch):
    wrong = make_key(tmp_path / "wrong key")
    ssh_device.client("stranger", IdentityFile=f'"{wrong}"', BatchMode="yes")
    ssh_device.allow(wrong)  # and no longer the right one
    try:
        result = deploy(model.path, "--identity", tmp_path / "none")
        assert (result.status, "--identity" in result.stderr) == (2, True)
        refused = deploy(model.path, to=("device",))
        asks = tmp_path / "askpass"
        asks.write_text("#!/bin/sh\necho wrong\n")
        asks.chmod(0o755)
        for name, value in (("SSH_ASKPASS", asks), ("SSH_ASKPASS_REQUIRE", "force"), ("DISPLAY", ":0")):
            monkeypatch.setenv(name, str(value))
        ssh_device.client("guest", PubkeyAuthentication="no", NumberOfPasswordPrompts=1)
        guest = deploy(model.path, to=("guest",))
        accepted = deploy(model.path, "--identity", wrong, "--dry-run")
    finally:
        ssh_device.allow(ssh_device.key)
    for result in (refused, guest):
        assert result.status == 1
        assert "it does not let you in" in result.stderr
        assert "Permission denied" in result.stderr
    assert accepted.status == 0, accepted.stderr


def test_a_host_that_does_not_answer_is_named(deploy, ssh_device, model):
    ssh_device.client("closed", Port=1)
    result = deploy(model.path, to=("closed",))
    assert result.status == 1
    assert result.stderr.startswith("charedge: closed: ssh cannot connect (")
    assert "Connection refused" in result.stderr
