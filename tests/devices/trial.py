"""The trial of a device: the install, the commands, the tests."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

from emulation import Device, clean_environment, fetch_wheels, make_environment
from serving import FIELDS, served_texts
from targets import Target
from workstation import REPOSITORY, Expected, pytest, requirements_of

TOLERANCE = 1e-3  # nats per character, between any device and this machine
INTERPRETERS = ("ai-edge-litert", "tflite-runtime")


@dataclass
class Report:
    """The result of a target."""

    target: Target
    numpy: str = ""
    interpreter: str = ""
    installed: list[str] = field(default_factory=list)
    megabytes: float = 0.0
    passed: int = 0
    skipped: int = 0
    difference: float = 0.0
    """The largest difference between a score there and here, in nats per character."""
    failures: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def require(self, condition: bool, failure: str) -> None:
        if not condition:
            self.failures.append(failure)


def try_target(target: Target, cache: Path, own: Path, expected: Expected, files: Sequence[Path]) -> Report:
    """Set up a device, install, and run all commands and tests."""
    report, start = Report(target), time.monotonic()
    try:
        device = make_environment(target, cache)
        wheels = fetch_wheels(target, requirements_of(target, own), cache / "wheels" / target.name)
        install(device, report, wheels, own, expected)
        report.numpy = device.run("-c", "import numpy; print(numpy.__version__)").stdout.strip()
        run_commands(device, report, expected)
        run_tests(device, report, expected, files)
    except RuntimeError as error:
        report.failures.append(str(error))
    report.seconds = time.monotonic() - start
    print(
        f"{target.name}: {'FAILED' if report.failures else 'passed'} in {report.seconds:.0f} s",
        *report.failures,
        sep="\n",
        flush=True,
    )
    return report


def install(device: Device, report: Report, wheels: Path, own: Path, expected: Expected) -> None:
    """Install charedge with the device's own pip, offline, and check what was installed."""
    target = device.target
    from_here = ("--no-index", "--find-links", wheels, "--find-links", own)
    device.pip("install", *from_here, target.install)
    if target.uninstall:
        (model,) = [path for path in expected.models if path.name == "gru-int8.tflite"]
        for chosen, options in (("ai-edge-litert", []), *((name, ["--interpreter", name]) for name in INTERPRETERS)):
            shown = device.run("-m", "charedge", "verify", model, *options).stdout
            report.require(chosen in shown, f"with both interpreters {' '.join(options) or 'no option'} does not take {chosen}")
        device.pip("uninstall", "--yes", *target.uninstall)
    site = device.site_packages
    report.installed = sorted(path.name.removesuffix(".dist-info") for path in site.glob("*.dist-info"))
    report.megabytes = sum(path.stat().st_size for path in site.rglob("*") if path.is_file()) / 1e6
    report.require(report.megabytes <= target.most_megabytes, f"the install takes {report.megabytes:.0f} MB")
    names = {re.sub("[._]", "-", name.rpartition("-")[0]).lower() for name in report.installed}
    report.require(names <= target.brings, f"the install brings {sorted(names - target.brings)}, which nobody expects")
    device.pip("install", *from_here, "charedge[serve]", "pytest", *([] if target.packages else ["regex"]))


def run_commands(device: Device, report: Report, expected: Expected) -> None:
    """Run every command on every model file; a file that the interpreter cannot run must be refused in a sentence."""
    for path in expected.models:
        name, refused = path.name, "int4" in path.name and device.target.interpreter == "tflite-runtime"
        commands: dict[str, list[object]] = {"score": [path, expected.text, "--json"]}
        if name.startswith("gru"):
            commands |= {
                "info": [path],
                "verify": [path],
                "generate": [path, "--prompt", "Hello", "--length", 100, "--seed", 1],
                "bench": [path, "--characters", 20, "--json"],
            }
        for command, arguments in commands.items():
            result = device.run("-m", "charedge", command, *arguments)
            if refused and command != "info":
                polite = result.returncode == 1 and "needs ai-edge-litert" in result.stderr and result.stderr.count("\n") == 1
                report.require(polite, f"{command} {name}: is not refused: {result.stderr[-300:]}")
            elif result.returncode:
                report.failures.append(f"{command} {name}: {result.stderr[-300:]}")
            elif command == "score":
                fields = json.loads(result.stdout)
                report.interpreter = fields["interpreter"]
                report.difference = max(report.difference, abs(fields["nats_per_character"] - expected.scores[name]))
            elif command == "generate":
                report.require(len(result.stdout) == 105, f"generate {name}: {len(result.stdout)} characters")
    report.require(*_served(device, expected))
    report.require(device.target.interpreter in report.interpreter, f"the interpreter is {report.interpreter or 'none'}")
    report.require(report.difference <= TOLERANCE, f"a score differs by {report.difference:.6f} nats")


def _served(device: Device, expected: Expected) -> tuple[bool, str]:
    """Whether the device's server writes the text that its `charedge generate` writes, and what to say if it does not."""
    (model,) = [path for path in expected.models if path.name == "gru-int8.tflite"]
    options = ["--prompt", FIELDS["prompt"], "--length", FIELDS["max_tokens"], "--seed", FIELDS["seed"], "--no-echo"]
    written = device.run("-m", "charedge", "generate", model, *options).stdout
    served = served_texts(device, model)
    return served == [written, written], f"serve: the texts are {served}, and not {written!r}"


def run_tests(device: Device, report: Report, expected: Expected, files: Sequence[Path]) -> None:
    """The tests of the runtime, on the models that this machine made."""
    results = device.folder / "tests.xml"
    environment = {**clean_environment(), "CHAREDGE_TEST_MODELS": str(expected.test_models)}
    result = device.run(*pytest(files, f"--junitxml={results}"), env=environment, cwd=REPOSITORY)
    if not results.exists():
        report.failures.append(f"pytest: {result.stdout[-2000:]}{result.stderr[-2000:]}")
        return
    suite = ElementTree.parse(results).getroot()[0]
    counts = {key: int(suite.get(key, 0)) for key in ("tests", "failures", "errors", "skipped")}
    report.skipped = counts["skipped"]
    report.passed = counts["tests"] - counts["failures"] - counts["errors"] - counts["skipped"]
    report.require(result.returncode == 0, result.stdout[-5000:])
