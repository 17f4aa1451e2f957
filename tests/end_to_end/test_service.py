"""The services of examples/systemd: their units, as systemd judges them, and the program of one of them."""

import re
import shutil
import subprocess
import sys

import pytest
from conftest import REPOSITORY

FOLDER = REPOSITORY / "examples" / "systemd"
UNIT = FOLDER / "charedge-ticker.service"
SERVER = FOLDER / "charedge-serve.service"
TICKER = FOLDER / "ticker.py"
MOST_EXPOSURE = 10  # of 100: what systemd-analyze calls safe

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="no systemd-analyze here: Debian's package systemd"
)


def ticker(model, session, *options):
    arguments = [sys.executable, TICKER, model.path, "--session", session, "--characters-per-second", "1000000", *options]
    return subprocess.run([*map(str, arguments)], capture_output=True, text=True, check=False)


@needs_systemd
@pytest.mark.parametrize("unit", [UNIT, SERVER], ids=lambda unit: unit.stem)
def test_systemd_finds_nothing_wrong_with_a_unit(unit, tmp_path):
    here = tmp_path / unit.name
    here.write_text(re.sub(r"/opt/charedge/bin/\w+", sys.executable, unit.read_text()))
    result = subprocess.run(["systemd-analyze", "verify", "--man=no", here], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout + result.stderr) == (0, "")


@needs_systemd
@pytest.mark.parametrize("unit", [UNIT, SERVER], ids=lambda unit: unit.stem)
def test_systemd_calls_the_sandbox_safe(unit):
    command = ["systemd-analyze", "security", "--offline=true", f"--threshold={MOST_EXPOSURE}", unit]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout
    assert re.search(r"exposure level .*: (0\.\d|1\.0) ", result.stdout)


def test_the_servers_unit_sets_variables_that_the_command_has(charedge):
    text = SERVER.read_text()
    (line,) = re.findall("^ExecStart=(.*)$", text, re.MULTILINE)
    variables = re.findall("^Environment=(CHAREDGE_[A-Z_]+)=", text, re.MULTILINE)
    assert line.split() == ["/opt/charedge/bin/charedge", "serve", "/opt/charedge/bard.tflite"]
    assert len(variables) == 4
    shown = charedge("serve", "--help").stdout
    assert all(re.search(rf"\b{name}\b", shown) for name in variables)


def test_the_tickers_unit_passes_options_that_the_program_has():
    (line,) = re.findall("^ExecStart=(.*)$", UNIT.read_text(), re.MULTILINE)
    shown = subprocess.run([sys.executable, TICKER, "--help"], capture_output=True, text=True, check=True).stdout
    options = re.findall(r"--[\w-]+", line)
    assert options
    assert all(option in shown for option in options)


def test_the_program_shows_wrapped_lines_and_resumes_where_it_stopped(model, tmp_path):
    whole = ticker(model, tmp_path / "whole", "--lines", "6", "--seed", "1", "--width", "20")
    assert (whole.returncode, whole.stderr) == (0, "")
    assert max(map(len, whole.stdout.splitlines())) <= 20
    display = tmp_path / "display"
    for seed in ("1", "2"):  # the second continues the draws of the first
        part = ticker(model, tmp_path / "parts", "--lines", "3", "--seed", seed, "--width", "20", "--display", display)
        assert (part.returncode, part.stdout) == (0, "")
    assert display.read_text(encoding="utf-8") == whole.stdout


@pytest.mark.parametrize(
    ("options", "status", "sentence"),
    [
        (("--session", "no/session"), 1, "cannot be written"),
        (("--display", "no/display"), 1, "No such file or directory: 'no/display'"),
        (("--width", "0"), 2, "--width must be at least 1"),
        (("--lines", "-1"), 2, "--lines at least 0"),
    ],
)
def test_the_program_says_what_is_wrong_in_a_sentence(model, tmp_path, options, status, sentence):
    result = ticker(model, tmp_path / "session", "--lines", "1", *options)
    assert (result.returncode, "Traceback" in result.stderr, sentence in result.stderr) == (status, False, True)
