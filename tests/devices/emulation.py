"""A device under emulation: Debian's own Python for its processor, in a virtual environment as its user would make one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import debian
from targets import Target

WRAPPER = """\
#!/bin/sh
exec {qemu} -cpu {processor} -L {root} -0 "$0" {root}/usr/bin/python{python} "$@"
"""
"""The environment's `python`. It is what its own sys.executable names, so that processes which it starts are emulated too."""

KERNEL = """\
import os

uname = os.uname
os.uname = lambda: os.uname_result([*uname()[:4], {kernel!r}])
"""
"""A sitecustomize.py for a kernel of another word length than the system; qemu shows one of the same."""

MOST_SECONDS = 3600  # for any one command


@dataclass(frozen=True)
class Device:
    """A virtual environment of a target."""

    target: Target
    folder: Path
    root: Path
    qemu: Path

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    @property
    def site_packages(self) -> Path:
        return self.folder / "lib" / f"python{self.target.python}" / "site-packages"

    def run(self, *arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run the device's Python with some arguments; what it prints is kept.

        Raises:
            RuntimeError: it hangs.
        """
        return _run([self.python, *arguments], **{"env": clean_environment(), **options})

    def pip(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        """Run the device's own pip, which sees the kernel that the device has.

        Raises:
            RuntimeError: it failed, or hangs.
        """
        command = [self.qemu, "-cpu", self.target.processor, "-L", self.root, "-0", self.folder / "bin" / "python3"]
        command += [self.root / "usr" / "bin" / f"python{self.target.python}", "-m", "pip", *arguments]
        environment = {
            **clean_environment(),
            "PYTHONPATH": f"{self.folder / 'kernel'}:{self.root / 'usr/lib/python3/dist-packages'}",
        }
        result = _run(command, env=environment)
        if result.returncode:
            raise RuntimeError(f"pip {' '.join(map(str, arguments))} failed on {self.target.name}:\n{result.stdout}{result.stderr}")
        return result


def _run(command: Sequence[object], **options: Any) -> subprocess.CompletedProcess[str]:
    call = [*map(str, command)]
    try:
        return subprocess.run(call, capture_output=True, text=True, check=False, timeout=MOST_SECONDS, **options)
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"{' '.join(call)} does not end within {MOST_SECONDS} s") from None


def clean_environment() -> dict[str, str]:
    """This machine's environment without what belongs to its own Python and pip."""
    left_out = ("PYTHON", "PIP_", "VIRTUAL_ENV", "LD_")
    return {key: value for key, value in os.environ.items() if not key.startswith(left_out)} | {"PIP_CONFIG_FILE": os.devnull}


def fetch_system(target: Target, cache: Path) -> None:
    """Fetch qemu and the target's Debian, as far as they are not there yet; targets of one Debian share it.

    Raises:
        SystemExit: apt failed.
    """
    debian.fetch_qemu(cache / "qemu")
    packages = [f"python{target.python}", "python3-pip", "libstdc++6", *target.packages]
    debian.unpack(cache / target.root, target.suite, target.architecture, packages)


def make_environment(target: Target, cache: Path) -> Device:
    """A virtual environment with nothing in it yet."""
    root = cache / target.root
    folder = cache / "environments" / target.name
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "bin").mkdir(parents=True)
    (folder / "kernel").mkdir()
    if target.kernel:
        (folder / "kernel" / "sitecustomize.py").write_text(KERNEL.format(kernel=target.kernel))
    device = Device(target, folder, root, cache / "qemu" / "usr" / "bin" / target.qemu)
    device.site_packages.mkdir(parents=True)
    system_packages = str(bool(target.packages)).lower()
    (folder / "pyvenv.cfg").write_text(f"home = {root}/usr/bin\ninclude-system-site-packages = {system_packages}\n")
    device.python.write_text(WRAPPER.format(qemu=device.qemu, processor=target.processor, root=root, python=target.python))
    device.python.chmod(0o755)
    (folder / "bin" / "python3").symlink_to(root / "usr" / "bin" / f"python{target.python}")  # pip reads its header: an ARM program
    return device


def fetch_wheels(target: Target, requirements: Sequence[str], folder: Path) -> Path:
    """Fetch on this machine the wheels that the device would fetch, unless they are there already.

    Raises:
        SystemExit: pip failed; its own words are on stderr.
    """
    stamp, wanted = folder / "complete", " ".join([*target.wheel_tags, *requirements])
    if stamp.exists() and stamp.read_text() == wanted:
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    tags = [argument for tag in target.wheel_tags for argument in ("--platform", tag)]
    options = ["-qq", "--dest", folder, "--only-binary", ":all:", "--python-version", target.python, *tags]
    numpy_is_debians = "python3-numpy" in target.packages  # so what requires it is to come without it
    alone = [line for line in requirements if numpy_is_debians and line.startswith("tflite-runtime")]
    rest = [line for line in requirements if line not in alone]
    for arguments in (rest, ["--no-deps", *alone] if alone else []):
        command = [sys.executable, "-m", "pip", "download", *options, *arguments]
        if arguments and subprocess.run([*map(str, command)], check=False).returncode:
            sys.exit(f"pip could not fetch the wheels of {target.name}: is the package index in reach?")
    stamp.write_text(wanted)
    return folder
