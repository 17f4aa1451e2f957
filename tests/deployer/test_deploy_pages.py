"""What the pages show of `charedge deploy` and of signatures works."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import REPOSITORY, local_addresses
from ssh_device import make_key, sha256

PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
LINES = sorted(
    {
        re.sub(r"\s+#.*", "", line)
        for page in PAGES
        for block in re.findall(r"```sh\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
        for line in block.splitlines()
        if line.startswith("charedge deploy")
    }
)


@pytest.mark.parametrize("line", LINES)
def test_the_lines_of_the_pages_deploy(line, installed, second, charedge, monkeypatch):
    device = installed.device
    device.client("a")
    device.client("b", SetEnv=f'CHAREDGE_HOME="{second.parents[2]}"')
    device.client("raspberrypi.local")
    monkeypatch.chdir(Path(installed.new).parent)
    words = shlex.split(line.replace("pi@", ""))[1:]  # the server knows the current user only
    if "--rollback" in words:
        assert charedge("deploy", "raspberrypi.local", "bard.tflite").status == 0
    with device.systemd():
        port = local_addresses(1)[0].rpartition(":")[2]
        result = charedge(*words, *(("--offline", "--service-port", port) if "--service" in words else ()))
    assert result.status == 0, result.stderr
    expected = installed.old if "--rollback" in words else installed.new
    for models in (device.models, second / "models") if "b" in words else (device.models,):
        assert sha256(models / "bard.tflite") == sha256(expected)


def test_the_commands_of_the_file_format_sign_and_verify(charedge, ssh_device, model, tmp_path):
    page = (REPOSITORY / "docs" / "file-format.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```sh\n(ssh-keygen .*?)```", page, re.DOTALL)
    key = make_key(tmp_path / "key")
    shutil.copy(model.path, tmp_path / "bard.tflite")
    script = block.replace("~/.ssh/id_ed25519", shlex.quote(str(key)))
    subprocess.run(["sh", "-ec", script], cwd=tmp_path, check=True, capture_output=True)
    checked = charedge("verify", tmp_path / "bard.tflite", "--allowed-signers", tmp_path / "allowed_signers")
    assert (checked.status, "ann@example.com" in checked.stdout) == (0, True), checked.stderr
