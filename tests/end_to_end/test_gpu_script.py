"""The script behind `make test-gpu`, on the CPU and with small networks; its figures mean nothing here."""

import json
import os
import subprocess
import sys

import gpu
import pytest
from conftest import REPOSITORY


def script(*arguments):
    """Run it where no GPU is to be seen."""
    command = [sys.executable, REPOSITORY / "tests" / "gpu.py", *arguments]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1"}
    return subprocess.run([str(part) for part in command], env=environment, capture_output=True, text=True, check=False)


def test_without_a_gpu_the_program_says_so_in_one_line():
    result = script()
    assert (result.returncode, result.stdout.count("\n")) == (0, 1), result.stderr
    assert result.stdout.startswith("no GPU was tested: ")


@pytest.mark.slow
def test_its_table_and_its_file_have_a_row_for_what_was_checked(tmp_path):
    checks = ["--check", "gradients", "--check", "losses", "--check", "convert"]
    small = ["--cpu", "--units", 16, "--steps", 3, "--precision", "mixed_bfloat16"]
    result = script(*checks, *small, "--json", tmp_path / "report.json")
    assert result.returncode == 0, result.stdout + result.stderr
    report = json.loads((tmp_path / "report.json").read_text())
    rows = {row["check"]: row for row in report["rows"]}
    assert list(rows) == [
        "gradient, gru mixed_bfloat16",
        "gradient, lstm mixed_bfloat16",
        "3 steps, mixed_bfloat16",
        "convert, the same bytes",
    ]
    lines = result.stdout.splitlines()
    for name, row in rows.items():
        assert any(line.startswith(name) and "passed" in line and line.endswith(row["figures"]) for line in lines), name
    compared = rows["3 steps, mixed_bfloat16"]["values"]
    assert len(compared["losses"]) == len(compared["expected"]) == 3
    assert 0 < compared["difference"] == max(abs(a - b) for a, b in zip(compared["losses"], compared["expected"], strict=True))
    assert rows["convert, the same bytes"]["values"]["here"] == rows["convert, the same bytes"]["values"]["cpu"]
    assert report["versions"].keys() >= {"python", "tensorflow", "keras", "charedge"}
    assert any("tensorflow 2." in line for line in lines)


@pytest.mark.parametrize("failing", [[sys.executable, "-c", "raise MemoryError('too large')"], ["/nonexistent/program"]])
def test_a_check_that_fails_to_run_is_a_failed_row_and_the_others_run(monkeypatch, capsys, tmp_path, failing):
    passing = [gpu.Row("fine", gpu.PASSED, "")]
    monkeypatch.setattr(gpu, "CHECKS", {"broken": lambda trial: [gpu.output(failing)], "fine": lambda trial: passing})
    monkeypatch.setattr(gpu, "child", lambda name: {"gpus": [], "versions": {}, "warnings": []})
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--cpu"])
    monkeypatch.setattr(os, "environ", dict(os.environ))
    assert gpu.main() == 1
    table = capsys.readouterr().out.splitlines()
    assert any(line.startswith("broken") and "FAILED" in line and ("too large" in line or "program" in line) for line in table)
    assert any(line.startswith("fine") and "passed" in line for line in table)


@pytest.mark.parametrize(("difference", "result"), [(0.001, "passed"), (0.002, "FAILED"), (float("nan"), "FAILED")])
def test_what_differs_by_more_than_the_tolerance_fails(difference, result):
    assert gpu.verdict("losses", difference, 0.0015).result == result
