"""`charedge deploy`, from a device with nothing on it to updates, rollbacks and refusals."""

import json
import shutil

from ssh_device import sha256


def test_the_first_deployment_installs_and_the_second_changes_nothing(deploy, ssh_device, model, tmp_path):
    file = shutil.copy(model.path, tmp_path / "bard.tflite")
    shutil.rmtree(ssh_device.prefix, ignore_errors=True)
    first = deploy(file, "--offline", "--json")
    assert first.status == 0, first.stderr
    (there,) = json.loads(first.stdout)["devices"]
    assert there["status"] == "deployed"
    print(first.stderr, first.stdout)
