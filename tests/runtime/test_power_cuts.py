"""The ticker of examples/systemd under power cuts; `make power-cuts` makes two hundred."""

import os
import re
import subprocess
import sys
from pathlib import Path

import power_cuts
import pytest
from charedge.runtime.files import write_atomically


def test_a_power_cut_loses_a_line_at_most_and_never_the_session(model):
    command = [sys.executable, power_cuts.__file__, "--cuts", "20", "--seed", "3", "--model", model.path]
    result = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")
    ticker, generate = result.stdout.splitlines()
    shown, lost = map(int, re.fullmatch(r"20 cuts: (\d+) lines shown, (\d+) lost, every session readable", ticker).groups())
    assert shown > 20
    assert lost <= 20
    (covered,) = map(int, re.match(r"20 cuts: (\d+) characters of one text, in the file each time", generate).groups())
    assert covered > 20


BROKEN = {
    "saved before it is written": "cli._hand_over = lambda saved: (saved.handed_over(), saved.save(), sys.stdout.flush())",
    "a state of elsewhere": "step_loop.Mark = lambda token, state, position: Mark(token, 0 * state, position)",
}


@pytest.mark.parametrize("change", BROKEN.values(), ids=BROKEN)
def test_a_fault_in_saving_the_session_of_generate_is_detected(model, tmp_path, change):
    program = (
        "import sys; from pathlib import Path; import power_cuts\n"
        "from charedge.runtime import cli, step_loop; from charedge.runtime.step_loop import Mark\n"
        f"{change}\n"
        "power_cuts.cut_generate(Path(sys.argv[1]), Path(sys.argv[2]), 16, 3)"
    )
    result = subprocess.run(
        [sys.executable, "-c", program, model.path, tmp_path],
        cwd=Path(power_cuts.__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "AssertionError: " in result.stderr


@pytest.mark.parametrize(
    "shown",
    [["a", "c", "d", "f"], ["a", "b", "b", "c"], ["a", "b", "x"], ["c", "d", "e", "f"]],
    ids=["two lost at one cut", "one repeated", "one of another text", "lost before any cut"],
)
def test_a_lost_or_repeated_line_is_detected(shown):
    assert power_cuts.compare(["a", "b", "d", "e"], list("abcdef"), [2, 4, 4]) == power_cuts.Losses(shown=4, lost=1)
    with pytest.raises(AssertionError):
        power_cuts.compare(shown, list("abcdef"), [1, len(shown)] if shown[1] != "c" else [3, 4])


def test_a_file_is_on_the_disk_before_it_has_its_name_and_the_name_after(tmp_path, monkeypatch):
    """A power cut may undo what was not synced, in any order."""
    events, fsync, replace = [], os.fsync, Path.replace
    opened = Path("/proc/self/fd")
    monkeypatch.setattr("os.fsync", lambda number: events.append(str((opened / str(number)).readlink())) or fsync(number))
    monkeypatch.setattr(Path, "replace", lambda *names: events.append("renamed") or replace(*names))
    write_atomically(tmp_path / "file", b"content")
    partial, *then = [event.removeprefix(str(tmp_path)) for event in events]
    assert (re.fullmatch(r"/\.charedge-\w+\.partial", partial) is not None, then) == (True, ["renamed", ""])
