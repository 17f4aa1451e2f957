"""What the machine that runs the device tests does itself: our wheels, the model files, and the scores to compare with."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from targets import NOT_RUN, Target

REPOSITORY = Path(__file__).parents[2]
ARMV7L = "manylinux_2_34_armv7l"  # the tag of our wheel for 32-bit ARM
UNITS = 256  # of the model files


def build_wheels(folder: Path) -> None:
    """Both of our wheels, from the sources as they are."""
    shutil.rmtree(folder, ignore_errors=True)
    for tag in ("any", ARMV7L):
        shutil.rmtree(REPOSITORY / "build" / "lib", ignore_errors=True)  # or setuptools packs what is left of an earlier version
        command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(REPOSITORY)]
        subprocess.run(command, check=True, env={**os.environ, "CHAREDGE_WHEEL": tag})


def requirements_of(target: Target, wheels: Path) -> list[str]:
    """What the device's charedge wheel and the tests require, except what its Debian provides."""
    tag = ARMV7L if target.architecture == "armhf" else "any"
    (wheel,) = wheels.glob(f"charedge-*-{tag}.whl")
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        metadata = archive.read(name).decode()
    required = re.findall(r"^Requires-Dist: ([^;\n]+)$", metadata, re.MULTILINE)
    extras = [*re.findall(r"\[(.+)\]", target.install), "serve"]
    for extra in extras:
        required += re.findall(rf'^Requires-Dist: ([^;\n]+); extra == "{extra}"$', metadata, re.MULTILINE)
    brought = [package.removeprefix("python3-") for package in target.packages]
    wanted = [*required, "pytest", "regex"]
    return [line for line in wanted if re.split(r"[^\w-]", line)[0] not in brought]


@dataclass(frozen=True)
class Expected:
    """What this machine makes, and the scores that the devices must reproduce."""

    models: list[Path]
    """Model files of a size that a device runs."""
    text: Path
    test_models: Path
    """The model files that `tests/runtime` asks for."""
    scores: dict[str, float]
    """Score of the text, by model file."""


def prepare(folder: Path, files: Sequence[Path], pattern: str) -> Expected:
    """Let the converter make model files, score them here, and run the tests here, which leaves the models that they need.

    Raises:
        SystemExit: the tests failed here already.
    """
    shutil.rmtree(folder, ignore_errors=True)
    test_models = folder / "test-models"
    test_models.mkdir(parents=True)
    text = folder / "text.txt"
    text.write_text((REPOSITORY / "README.md").read_text(encoding="utf-8")[:600], encoding="utf-8")
    print("on this machine: making model files, running the tests", flush=True)
    subprocess.run([sys.executable, REPOSITORY / "tests" / "model_files.py", folder / "models", "--units", str(UNITS)], check=True)
    environment = {**os.environ, "CHAREDGE_TEST_MODELS": str(test_models)}
    tests = subprocess.run([sys.executable, *pytest(files)], env=environment, cwd=REPOSITORY, capture_output=True, text=True)
    if tests.returncode:
        sys.exit(f"the tests of the runtime fail on this machine already:\n{tests.stdout[-3000:]}")
    expected = Expected(sorted((folder / "models").glob(pattern)), text, test_models, {})
    for path in expected.models:
        command = [sys.executable, "-m", "charedge", "score", path, text, "--json"]
        result = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        expected.scores[path.name] = json.loads(result.stdout)["nats_per_character"]
    return expected


def pytest(files: Sequence[Path], *options: str) -> list[str]:
    """The arguments by which Python runs the tests, here and there."""
    expression = " and ".join(f"not {name}" for name in NOT_RUN)
    return ["-m", "pytest", "-q", "--tb=short", "-p", "no:cacheprovider", "-k", expression, *options, *map(str, files)]
