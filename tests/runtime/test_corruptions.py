"""Two hundred of the damaged files of `make fuzz`, and whether the fuzzer detects what it looks for."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import fuzz
import pytest
from corruptions import CORRUPTIONS, damage

PROGRAM = Path(fuzz.__file__)


@pytest.fixture(scope="module")
def data(model):
    return model.path.read_bytes()


def test_two_hundred_damaged_files_are_refused_or_harmless(model):
    options = ["--count", "200", "--seed", "1", "--model", model.path]
    result = subprocess.run([sys.executable, PROGRAM, *options], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")
    name, cases, refused, harmless, violations, *_ = result.stdout.splitlines()[-1].split()
    assert (name, cases, violations) == ("all", "200", "0")
    assert int(refused) > 150
    assert int(refused) + int(harmless) == 200


def test_a_seed_and_a_case_number_reproduce_the_damaged_file(data):
    for case in range(len(CORRUPTIONS)):
        assert damage(data, 7, case) == damage(data, 7, case)


def test_every_corruption_changes_the_file(data):
    for case, corruption in enumerate(CORRUPTIONS):
        name, damaged = damage(data, 3, case)
        assert name == corruption
        assert damaged != data, name


def use_memory():
    return "refused" if bytearray(b"x") * 300_000_000 else ""


def use_time():
    while time.process_time() < 2.1:
        pass
    return "harmless"


@pytest.mark.parametrize(
    ("function", "verdict"),
    [
        (lambda: "harmless", "harmless"),
        (lambda: "changes the text", "changes the text"),
        (lambda: os.kill(os.getpid(), signal.SIGKILL), "crashes with SIGKILL"),
        (lambda: os._exit(3), "ends the process with status 3"),
        (lambda: sys.exit(4), "raises SystemExit"),
        (lambda: time.sleep(9), "hangs for 1 s"),
        (lambda: str(list(map(bytes, [sys.maxsize - 100] * 3))), "raises MemoryError"),
        (use_memory, "takes 30"),
        (use_time, "takes 2.1 s"),
    ],
)
def test_the_fuzzer_reports_a_crash_a_hang_and_a_changed_text(function, verdict):
    outcome = fuzz.isolated(function, wall_seconds=1 if "hangs" in verdict else 30)
    assert outcome.verdict.startswith(verdict)
    assert outcome.passed == (verdict == "harmless")


def test_the_fuzzer_fails_with_a_case_to_reproduce(model, data, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(fuzz, "judge", lambda path, expected: "changes the text")
    kept = tmp_path / "kept.tflite"
    options = ["--seed", "5", "--model", str(model.path)]
    assert fuzz.main([*options, "--count", "2"]) == 1
    assert "case 1 of seed 5 (bits flipped) changes the text" in capsys.readouterr().err
    assert fuzz.main([*options, "--case", "1", "--keep", str(kept)]) == 1
    assert kept.read_bytes() == damage(data, 5, 1)[1]
