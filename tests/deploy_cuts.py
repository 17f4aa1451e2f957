"""Cut the connection of deployments again and again, and check that the device has the old model or the new one, and that it runs.

    python tests/deploy_cuts.py [--cuts 50] [--seed 1]

The device is this machine behind an OpenSSH server of its own, with a service that a stand-in for systemd runs. Each deployment
replaces the model by the other one of two, and its connection is cut after a number of pieces of data, one in each of as many equal
parts of a whole deployment as there are cuts. Then the file on the device must be one of the two, `charedge verify` must pass
there, and the server must answer.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from conftest import local_addresses
from model_files import build_model_file
from ssh_device import Cutter, SshDevice, make_stub_wheels, sha256, workstation_environment

NAME = "bard.tflite"


def deploy(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "charedge", "deploy", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def wait_for_scripts(device: SshDevice) -> None:
    """Wait until no script of a deployment runs on the device any more."""
    while True:
        try:
            process, started = (device.prefix / "lock" / "process").read_text().split()
            if Path(f"/proc/{process}/stat").read_text().split()[21] != started:
                return
        except (OSError, ValueError):
            return
        time.sleep(0.2)


def problems(device: SshDevice, models: list[Path], port: str) -> list[str]:
    """What is wrong with the device."""
    found = []
    model = device.models / NAME
    if sha256(model) not in map(sha256, models):
        found.append("its model is neither the old one nor the new one")
    verify = [device.prefix / "venv" / "bin" / "python", "-m", "charedge", "verify", model]
    verified = subprocess.run([*map(str, verify)], capture_output=True, text=True, check=False)
    if verified.returncode:
        found.append(f"its model does not pass: {verified.stderr.strip()}")
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=30) as answer:
            answer.read()
    except OSError as error:
        found.append(f"its service does not answer: {error}")
    return found


def main() -> int:
    """Run the program; the exit status is 1 if the device was left without a working model once."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cuts", type=int, default=50, help="number of cuts [default: 50]")
    parser.add_argument("--seed", type=int, default=1, help="the same seed gives the same cuts [default: 1]")
    options = parser.parse_args()
    draw, port = random.Random(options.seed), local_addresses(1)[0].rpartition(":")[2]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        models = []
        for units in (16, 24):
            (folder / str(units)).mkdir()
            models.append(build_model_file(folder / str(units) / NAME, quantization="int8", units=units).path)
        device = SshDevice(folder / "device")
        os.environ.update(workstation_environment(device, make_stub_wheels(folder / "wheels")))
        cutter = Cutter(device.port)
        device.client("cut", Port=cutter.port)
        with device.systemd():
            for model in models:
                cutter.after(sys.maxsize)
                result = deploy("cut", model, "--offline", "--service", "serve", "--service-port", port)
                if result.returncode:
                    sys.exit(f"a deployment fails without a cut: {result.stderr}")
            whole, failed, complete = cutter.pieces, 0, 0
            for number in range(options.cuts):
                (other,) = [model for model in models if sha256(model) != sha256(device.models / NAME)]
                at = int((number + draw.random()) * whole / options.cuts)
                cutter.after(at)
                result = deploy("cut", other)
                wait_for_scripts(device)
                found = problems(device, models, port)
                complete += result.returncode == 0
                failed += bool(found)
                outcome = "new" if sha256(device.models / NAME) == sha256(other) else "old"
                print(f"cut after {at} of {whole} pieces: the {outcome} model", *found, flush=True)
                if found:
                    print(result.stderr)
            cutter.after(sys.maxsize)
            result = deploy("cut", models[0])
            if result.returncode or sha256(device.models / NAME) != sha256(models[0]):
                print(f"the last deployment, which was not cut, fails: {result.stderr}")
                failed += 1
        shutil.rmtree(device.models)
        device.stop()
    print(
        f"{options.cuts - failed} of {options.cuts} cuts left a verified model that runs; "
        f"{complete} deployments ended before their cut"
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
