"""Deploy to devices under emulation: Debian's own Python for the processor, behind an OpenSSH server, with real carried wheels.

    python tests/deploy_devices.py [--target NAME]... [--cache FOLDER]

Each device gets a model of the package: a first deployment with carried wheels, a second one that must change nothing, an update, a
rollback. Needs Debian's apt (no root), OpenSSH's server and the network. Nothing measured here is a speed of a device.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TESTS = Path(__file__).parent
sys.path[:0] = [str(TESTS), str(TESTS / "devices")]

import debian  # noqa: E402
from emulation import fetch_system  # noqa: E402
from ssh_device import SshDevice, sha256, workstation_environment  # noqa: E402
from targets import SMOKE, TARGETS, Target  # noqa: E402

NAME = "bard.tflite"
PYTHON = """\
export PYTHONPATH={kernel}{library}
exec {qemu} -cpu {processor} -L {root} -0 "$0" {root}/usr/bin/python{version} "$@"
"""
SITE = """\
import builtins, os, sys

uname, opened = os.uname, builtins.open
os.uname = lambda: os.uname_result([*uname()[:4], {machine!r}])


def open_program(file, *arguments, **options):  # pip reads the header of its Python, which is a script here, to tell ARM programs
    return opened({program!r} if file == sys.executable else file, *arguments, **options)


builtins.open = open_program
"""
MACHINES = {"arm64": "aarch64", "armhf": "armv7l"}


def make_device(target: Target, cache: Path, folder: Path) -> SshDevice:
    """A server whose shell finds the emulated Python, and programs that tell of the emulated system, first in its PATH."""
    root, device = cache / target.root, SshDevice(folder)
    kernel = folder / "kernel"
    kernel.mkdir()
    program = root / "usr" / "bin" / f"python{target.python}"
    machine = target.kernel or MACHINES[target.architecture]
    (kernel / "sitecustomize.py").write_text(SITE.format(machine=machine, program=str(program.resolve())))
    qemu = cache / "qemu" / "usr" / "bin" / target.qemu
    library = ""
    if target.architecture == "armhf":  # for which qemu looks up files in this machine's own /usr
        standard = root / "usr" / "lib" / f"python{target.python}"
        library = "".join(f":{place}" for place in (standard, standard / "lib-dynload", root / "usr/lib/python3/dist-packages"))
    script = PYTHON.format(kernel=kernel, library=library, qemu=qemu, processor=target.processor, root=root, version=target.python)
    device.program("python3", script)
    for version in range(10, 15):  # this machine's own are not the device's
        device.program(f"python3.{version}", "exit 127")
    device.program("uname", f'case $1 in -m) echo {machine} ;; *) exec /bin/uname "$@" ;; esac')
    device.program("dpkg", f"echo {target.architecture}")
    bits = 32 if target.architecture == "armhf" else 64
    device.program("getconf", f'case $1 in LONG_BIT) echo {bits} ;; *) echo "glibc 2.36" ;; esac')
    return device


OWN_TIME = """\
import sys, time
from charedge.deployer import ssh
from charedge.program import run

inside, runs, opens = 0.0, ssh.Connection.run, ssh._read_ready


def timed(function):
    def call(*given, **named):
        global inside
        began = time.monotonic()
        try:
            return function(*given, **named)
        finally:
            inside += time.monotonic() - began

    return call


ssh.Connection.run, ssh._read_ready = timed(runs), timed(opens)
status = run(["deploy", *sys.argv[1:]])
print(f"inside ssh: {inside}", file=sys.stderr)
sys.exit(status)
"""
"""`charedge deploy`, which prints at the end how many seconds it has waited for ssh."""


def deploy(*arguments: object) -> tuple[int, str, float, float]:
    """Run `charedge deploy`; returns its status, its result, its seconds, and those outside ssh."""
    start = time.monotonic()
    result = subprocess.run([sys.executable, "-c", OWN_TIME, *map(str, arguments)], capture_output=True, text=True, check=False)
    seconds = time.monotonic() - start
    *lines, last = result.stderr.splitlines()
    print(result.stdout, *(lines if result.returncode else ()), sep="\n")
    return result.returncode, result.stdout, seconds, seconds - float(last.rpartition(" ")[2])


def try_target(target: Target, cache: Path, folder: Path) -> list[str]:
    """Deploy to a target; returns what went wrong."""
    fetch_system(target, cache)
    device, failures = make_device(target, cache, folder / target.name), []
    os.environ.update(workstation_environment(device))
    from charedge.runtime.bundled import FOLDER

    models = {}
    for name in ("shakespeare-tiny", "shakespeare"):
        (folder / target.name / name).mkdir()
        models[name] = Path(shutil.copy(FOLDER / f"{name}.tflite", folder / target.name / name / NAME))
    steps = (
        ("first, wheels carried", [models["shakespeare-tiny"], "--offline"], "shakespeare-tiny"),
        ("second, unchanged", [models["shakespeare-tiny"]], "shakespeare-tiny"),
        ("update", [models["shakespeare"]], "shakespeare"),
        ("rollback", [NAME, "--rollback"], "shakespeare-tiny"),
    )
    for label, arguments, expected in steps:
        status, result, seconds, own = deploy("device", *arguments)
        print(f"{target.name}: {label}: status {status}, {seconds:.1f} s, outside ssh {own:.1f} s", flush=True)
        is_expected = not status and sha256(device.models / NAME) == sha256(models[expected])
        if not is_expected or ("unchanged" in label) != ("unchanged" in result):
            failures.append(f"{target.name}: {label}")
            break
    figures = json.loads((device.models / f"{NAME}.json").read_text()) if not failures else {}
    for place in ("there", "here") if figures else ():
        measured = figures[place]
        print(f"{target.name}: {place}: {measured['interpreter']}, {measured['nats_per_character']:.6f} nats per character")
    device.stop()
    return failures


def main() -> int:
    """Run the program; the exit status is 1 if anything failed on any target."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--target", action="append", choices=[target.name for target in TARGETS], help="only this one; repeatable")
    parser.add_argument("--cache", type=Path, default=TESTS.parent / "build" / "devices", help="where to keep what was fetched")
    options = parser.parse_args()
    debian.require_apt()
    names = options.target or SMOKE
    with tempfile.TemporaryDirectory() as folder:
        failures = []
        for target in TARGETS:
            if target.name in names:
                failures += try_target(target, options.cache.resolve(), Path(folder))
    print(*(failures or ["all deployments were as expected"]), sep="\n")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
