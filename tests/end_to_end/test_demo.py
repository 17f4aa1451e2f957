"""`charedge demo`, on a small text in place of Python's documentation, so that it takes seconds."""

import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import heed_ctrl_c

PROGRAM = Path(sys.executable).with_name("charedge")
SMALL_DEMO = """
import sys
from charedge import demo_cli
from charedge.program import run

commands = demo_cli.demo_commands

def small_commands(folder):
    (_, _, *rest), *others = commands(folder)
    return [["train", sys.argv[1], *rest], *others]

demo_cli.TRAIN = "--units 32 --embedding-dim 8 --epochs 1"
demo_cli.demo_commands = small_commands
if sys.argv[3:] == ["dry"]:
    demo_cli._run = lambda command: 0
sys.exit(run(["demo", "--output", sys.argv[2]]))
"""


def with_path(*folders):
    """The environment, with `charedge` on PATH or not."""
    others = [folder for folder in os.environ["PATH"].split(os.pathsep) if not (Path(folder) / "charedge").exists()]
    return {**os.environ, "PATH": os.pathsep.join([*map(str, folders), *others])}


@pytest.fixture
def demo(corpus, tmp_path):
    return [sys.executable, "-c", SMALL_DEMO, str(corpus), str(tmp_path / "the demo")]


def closing_commands(stdout):
    closing = stdout.split("These three commands did it:")[1]
    return [shlex.split(line, comments=True) for line in closing.splitlines() if line.startswith("  ")]


def test_the_demo_runs_and_names_its_three_commands(demo, tmp_path):
    result = subprocess.run(demo, capture_output=True, text=True, check=False, env=with_path(PROGRAM.parent))
    assert result.returncode == 0, result.stderr
    folder = tmp_path / "the demo"
    assert (folder / "python-docs.tflite").exists()
    for line in ("$ charedge train", f"$ charedge convert '{folder}/run'", f"$ charedge generate '{folder}/python-docs.tflite'"):
        assert f"\n{line}" in result.stdout
    commands = closing_commands(result.stdout)
    assert [command[:2] for command in commands] == [
        ["charedge", name] for name in ("train", "convert", "generate", "generate", "info", "train")
    ]


@pytest.mark.slow
def test_where_the_environment_is_not_activated_the_printed_commands_work_as_printed(demo):
    result = subprocess.run(demo, capture_output=True, text=True, check=False, env=with_path())
    assert result.returncode == 0, result.stderr
    lines = [line for line in result.stdout.splitlines() if f"  {PROGRAM} info" in line]
    shown = subprocess.run(["sh", "-c", lines[0]], capture_output=True, text=True, check=False, env=with_path())
    assert (shown.returncode, "python-docs" in shown.stdout) == (0, True), shown.stderr


def test_another_charedge_on_the_path_is_not_used(demo, tmp_path):
    other = tmp_path / "bin" / "charedge"
    other.parent.mkdir()
    other.write_text("#!/bin/sh\nexit 1\n")
    other.chmod(0o755)
    result = subprocess.run([*demo, "dry"], capture_output=True, text=True, check=False, env=with_path(other.parent))
    assert result.returncode == 0, result.stderr
    assert all(command[0] == str(PROGRAM) for command in closing_commands(result.stdout))


def test_ctrl_c_stops_the_demo_and_what_it_runs(demo):
    pipe = subprocess.PIPE
    with subprocess.Popen(demo, stdout=pipe, stderr=pipe, text=True, preexec_fn=heed_ctrl_c) as running:
        assert running.stderr is not None
        assert any("untrained" in line for line in running.stderr)
        running.send_signal(signal.SIGINT)
        assert running.wait() == 130
        assert "Traceback" not in running.stderr.read()
