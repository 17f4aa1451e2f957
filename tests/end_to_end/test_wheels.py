"""What pip finds for each kind of machine, given both charedge wheels and stand-ins for those of its dependencies."""

import json
import os
import shlex
import shutil
import subprocess
import sys
import zipfile

import pytest
from conftest import REPOSITORY

LEFT_OUT = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "__pycache__", "runs", "tests", "*.tflite")
ARMV7L = "manylinux_2_34_armv7l"
OTHERS = [
    *("typer-0.28.0-py3-none-any", "typer-0.29.0-py3-none-any"),
    *(f"ai_edge_litert-2.3.0-cp{python}-cp{python}-manylinux_2_27_{m}" for python in (311, 313) for m in ("x86_64", "aarch64")),
    *(f"tflite_runtime-2.14.0-cp311-cp311-manylinux_2_34_{m}" for m in ("x86_64", "aarch64", "armv7l")),
    *(f"numpy-{v}-cp{python}-cp{python}-manylinux_2_{'28' if v > '2' else f'17_{m}.manylinux2014'}_{m}" for v, python, m in [
        ("2.3.0", 313, "aarch64"), ("2.3.0", 311, "x86_64"), ("2.3.0", 311, "aarch64"), ("2.3.0", 311, "armv7l"),
        ("1.26.4", 311, "x86_64"), ("1.26.4", 311, "aarch64"), ("1.26.4", 311, "armv7l"),
    ]),
]  # fmt: skip
"""The wheels that exist; numpy for armv7l is not on PyPI, but on the index that Raspberry Pi OS adds."""


@pytest.fixture(scope="module")
def wheels(tmp_path_factory):
    """A folder with both of our wheels, as `make wheels` builds them, and the stand-ins."""
    folder = tmp_path_factory.mktemp("wheels")
    for tag in ("any", ARMV7L):
        source = folder / f"source-{tag}"
        shutil.copytree(REPOSITORY, source, ignore=LEFT_OUT)
        command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder / "found", source]
        subprocess.run(command, check=True, env={**os.environ, "CHAREDGE_WHEEL": tag})
    for name in OTHERS:
        project, version, *tags = name.split("-")
        with zipfile.ZipFile(folder / "found" / f"{name}.whl", "w") as archive:
            info = f"{project}-{version}.dist-info"
            archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {project}\nVersion: {version}\n")
            archive.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {'-'.join(tags)}\n")
            archive.writestr(f"{info}/RECORD", "")
    return folder / "found"


@pytest.fixture
def resolve(wheels, tmp_path):
    """A function that asks pip what it would install on a machine: distribution -> the name of its wheel."""

    def call(wanted, machine, python):
        tags = [argument for minor in range(36, 16, -1) for argument in ("--platform", f"manylinux_2_{minor}_{machine}")]
        options = ["--only-binary", ":all:", "--no-index", "--find-links", wheels, "--python-version", python, *tags]
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed", *options]
        report = tmp_path / "report.json"
        result = subprocess.run(
            [*map(str, command), "--target", str(tmp_path), "--report", str(report), wanted],
            capture_output=True,
            text=True,
            check=False,
            env={key: value for key, value in os.environ.items() if key != "PIP_FIND_LINKS"},
        )
        if result.returncode:
            return result.stderr
        entries = json.loads(report.read_text())["install"]
        return {entry["metadata"]["name"].replace("_", "-"): entry["download_info"]["url"].rpartition("/")[2] for entry in entries}

    return call


def test_a_32_bit_system_finds_the_older_interpreter_whatever_its_kernel_is_called(resolve):
    """The machine that this runs on is x86-64 or aarch64, as a 64-bit kernel says of itself: no marker sees the 32-bit system."""
    found = resolve("charedge", "armv7l", "3.11")
    assert set(found) == {"charedge", "typer", "tflite-runtime", "numpy"}
    assert found["charedge"].endswith(f"-py3-none-{ARMV7L}.whl")
    assert found["tflite-runtime"].endswith(f"{ARMV7L}.whl")
    assert found["numpy"].startswith("numpy-1.26.4")


@pytest.mark.parametrize(("machine", "python"), [("aarch64", "3.11"), ("aarch64", "3.13"), ("x86_64", "3.11")])
def test_a_64_bit_system_finds_litert(resolve, machine, python):
    found = resolve("charedge", machine, python)
    assert set(found) == {"charedge", "typer", "ai-edge-litert", "numpy"}
    assert found["charedge"].endswith("-py3-none-any.whl")
    assert found["ai-edge-litert"].endswith(f"{machine}.whl")
    assert found["typer"].startswith("typer-0.28")


def test_the_extra_adds_the_older_interpreter_and_the_numpy_that_it_needs(resolve):
    found = resolve("charedge[tflite-runtime]", "aarch64", "3.11")
    assert {"ai-edge-litert", "tflite-runtime"} <= set(found)
    assert found["numpy"].startswith("numpy-1.26.4")


def test_a_32_bit_system_with_a_newer_python_names_the_missing_interpreter(resolve):
    assert "No matching distribution found for tflite-runtime==2.14.0" in resolve("charedge", "armv7l", "3.13")


def test_what_the_page_downloads_for_devices_without_a_network_is_all_there(wheels, tmp_path):
    (tmp_path / "dist").symlink_to(wheels)
    page = (REPOSITORY / "docs" / "devices.md").read_text(encoding="utf-8").replace("\\\n", " ")
    commands = [shlex.split(line)[1:] for line in page.splitlines() if line.startswith("pip download")]
    assert len(commands) == 3
    for command in commands:
        offline = [sys.executable, "-m", "pip", *command, "--quiet", "--no-index", "--find-links", "dist"]
        subprocess.run(offline, check=True, cwd=tmp_path)
    found = {path.name.split("-")[0] for path in (tmp_path / "wheels").iterdir()}
    assert found == {"charedge", "typer", "ai_edge_litert", "tflite_runtime", "numpy"}
    assert len(list((tmp_path / "wheels").glob("charedge-*.whl"))) == 2


def test_the_wheels_are_small(wheels):
    sizes = [path.stat().st_size for path in wheels.glob("charedge-*.whl")]
    assert len(sizes) == 2
    assert max(sizes) <= 390_000  # the server, the page and the deployer have 100,000 of them


def test_a_wheel_of_another_name_is_refused(tmp_path):
    command = [sys.executable, REPOSITORY / "setup.py", "--version"]
    environment = {**os.environ, "CHAREDGE_WHEEL": "armv6l"}
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=tmp_path)
    assert (result.returncode, "CHAREDGE_WHEEL=armv6l is unknown" in result.stderr) == (1, True)
