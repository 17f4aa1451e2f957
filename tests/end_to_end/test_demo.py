"""`charedge demo`, on a small text in place of Python's documentation, so that it takes seconds."""

import signal
import subprocess
import sys

import pytest
from conftest import heed_ctrl_c

SMALL_DEMO = """
import sys
from charedge.converter import demo
from charedge.program import run

commands = demo.demo_commands

def small_commands(folder):
    (_, _, *rest), *others = commands(folder)
    return [["train", sys.argv[1], *rest], *others]

demo.TRAIN = "--units 32 --embedding-dim 8 --epochs 1"
demo.demo_commands = small_commands
sys.exit(run(["demo", "--output", sys.argv[2]]))
"""


@pytest.fixture
def demo(corpus, tmp_path):
    return [sys.executable, "-c", SMALL_DEMO, str(corpus), str(tmp_path / "demo")]


def test_the_demo_runs_and_names_its_three_commands(demo, tmp_path):
    result = subprocess.run(demo, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    folder = tmp_path / "demo"
    assert (folder / "python-docs.tflite").exists()
    for line in ("$ charedge train", f"$ charedge convert {folder}/run", f"$ charedge generate {folder}/python-docs.tflite"):
        assert f"\n{line}" in result.stdout
    closing = result.stdout.split("These three commands did it:")[1]
    assert closing.count("\n  charedge ") == 6  # the three, and three to try next


def test_ctrl_c_stops_the_demo_and_what_it_runs(demo):
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(demo, **pipes, text=True, preexec_fn=heed_ctrl_c) as running:
        assert any("untrained" in line for line in running.stderr)
        running.send_signal(signal.SIGINT)
        assert running.wait() == 130
        assert "Traceback" not in running.stderr.read()
