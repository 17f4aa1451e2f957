"""A device behind a real OpenSSH server, with charedge installed on it once."""

from __future__ import annotations

import shutil
from types import SimpleNamespace

import pytest
from charedge.deployer.report import measure_here
from ssh_device import SSH, SSHD, Cutter, SshDevice, make_stub_wheels, sha256, workstation_environment


@pytest.fixture(scope="session")
def stub_wheels(tmp_path_factory):
    """A folder of wheels, which pip takes in place of the package index."""
    return make_stub_wheels(tmp_path_factory.mktemp("stubs") / "wheels")


@pytest.fixture(scope="session")
def ssh_device(tmp_path_factory):
    """A device with nothing on it."""
    if SSHD is None or SSH is None:
        pytest.skip("there is no OpenSSH here: install openssh-server and openssh-client")
    device = SshDevice(tmp_path_factory.mktemp("device"))
    yield device
    device.stop()


@pytest.fixture(scope="session")
def figures():
    """What was measured of each model on this machine, so that this takes its time once."""
    return {}


@pytest.fixture(autouse=True)
def workstation(monkeypatch, request, figures):
    """This machine: its ssh knows the device, and its pip has the stub wheels and no index."""
    if "ssh_device" not in request.fixturenames:
        return
    device, stubs = request.getfixturevalue("ssh_device"), request.getfixturevalue("stub_wheels")

    def measure_once(path, nats):
        key = sha256(path)
        if key not in figures:
            figures[key] = measure_here(path, nats)
        return figures[key]

    monkeypatch.setattr("charedge.deployer.deploy.measure_here", measure_once)
    for name, value in workstation_environment(device, stubs).items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def deploy(charedge, ssh_device):
    """Run `charedge deploy device ...`: `deploy(model, "--offline")` -> status, stdout, stderr."""

    def call(*arguments, to=("device",)):
        return charedge("deploy", *to, *arguments)

    return call


@pytest.fixture(scope="session")
def snapshots():
    """The models on the device after the first deployment, by its file; a virtual environment cannot be copied, models can."""
    return {}


@pytest.fixture
def installed(deploy, ssh_device, tmp_path, models, snapshots):
    """A device with charedge and `bard.tflite`, and two files of that name here: `.device`, `.old` which it has, `.new`."""
    files = []
    for index, options in enumerate(({"quantization": "int8"}, {"quantization": "int8", "units": 24})):
        (tmp_path / str(index)).mkdir()
        files.append(shutil.copy(models(**options).path, tmp_path / str(index) / "bard.tflite"))
    ssh_device.before_commands()
    shutil.rmtree(ssh_device.models, ignore_errors=True)
    if not snapshots:
        result = deploy(files[0], "--offline")
        assert result.status == 0, result.stderr
        snapshots["models"] = shutil.copytree(ssh_device.models, ssh_device.folder / "snapshot")
    else:
        shutil.copytree(snapshots["models"], ssh_device.models)
    return SimpleNamespace(device=ssh_device, old=files[0], new=files[1])


@pytest.fixture
def second(installed):
    """The home folder of a second device, which has the first one's charedge and no model."""
    device, home = installed.device, installed.device.folder / "second"
    shutil.rmtree(home, ignore_errors=True)
    prefix = home / ".local" / "share" / "charedge"
    prefix.mkdir(parents=True)
    (prefix / "venvs").symlink_to(device.prefix / "venvs")
    (prefix / "venv").symlink_to((device.prefix / "venv").readlink())
    device.client("second", SetEnv=f'CHAREDGE_HOME="{home}"')
    return prefix


@pytest.fixture
def cutter(ssh_device):
    """A relay that cuts connections; `cut` is the name of the device behind it."""
    relay = Cutter(ssh_device.port)
    ssh_device.client("cut", Port=relay.port)
    yield relay
    relay.close()
