"""Kill the ticker of examples/systemd in the middle of saving its session, again and again, and see what is lost.

    python tests/power_cuts.py [--cuts 200] [--seed 1] [--model FILE]

Each time it is killed (-9) before some line of the code that locks and saves, in a process of its own. The session must then be
readable and free, and the lines on the display must go on where it stands: with at most one line missing at each cut, and none
twice.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import os
import random
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from charedge.runtime import files, lock, session
from charedge.runtime.model_file import read_model_file

TICKER = Path(__file__).parents[1] / "examples" / "systemd" / "ticker.py"
SAVING = {files.__file__, lock.__file__, session.__file__}
MOST_STEPS = 300  # lines of the code that locks and saves until a cut: about five saves


@dataclass(frozen=True)
class Losses:
    """What became of the text after some cuts."""

    shown: int
    """Lines that were displayed."""
    lost: int
    """Lines that were not, where at most one a cut may be."""


def cut(arguments: list[str], step: int) -> bool:
    """Run the ticker until it has run a number of lines of the saving code.

    Returns:
        Whether it was killed then, and did not end before.

    Raises:
        AssertionError: it failed.
    """
    child = os.fork()
    if child == 0:
        try:
            _run_until(arguments, step)
        except BaseException as error:  # this is a copy of the process that must not go on
            print(f"the ticker failed: {error!r}", file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    assert killed or status == 0, f"the ticker ended with status {status}"
    return killed


def _run_until(arguments: list[str], step: int) -> None:
    """In the child: the ticker, and a SIGKILL before the line of the saving code that has the number `step`; 0 is none."""
    spec = importlib.util.spec_from_file_location("ticker", TICKER)
    assert spec is not None
    assert spec.loader is not None
    ticker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(ticker)
    steps = itertools.count(1)

    def trace(frame, event, argument):
        if frame.f_code.co_filename not in SAVING:
            return None
        if event == "line" and next(steps) == step:
            os.kill(os.getpid(), signal.SIGKILL)
        return trace

    sys.settrace(trace)
    ticker.main(arguments)


def cut_power(model: Path, folder: Path, cuts: int, seed: int) -> Losses:
    """Cut the ticker's power a number of times, and compare what it displayed with a text that was never interrupted.

    Raises:
        AssertionError: a session is unreadable, or more is lost than may be.
    """
    display, state, moments = folder / "display", folder / "session.json", random.Random(seed)
    arguments = [str(model), "--seconds", "0", "--width", "1000", "--seed", "7"]
    manifest = read_model_file(model).manifest
    display.touch()
    ends = []
    for _ in range(cuts):
        assert cut([*arguments, "--session", str(state), "--display", str(display)], moments.randint(1, MOST_STEPS))
        if state.exists():
            session.Session.load(state, manifest.flatbuffer_sha256, manifest.state_size)
        ends.append(len(display.read_text(encoding="utf-8").splitlines()))
    shown = display.read_text(encoding="utf-8").splitlines()
    whole = folder / "whole"
    count = str(len(shown) + cuts)
    assert not cut([*arguments, "--session", str(folder / "whole.json"), "--display", str(whole), "--lines", count], 0)
    return compare(shown, whole.read_text(encoding="utf-8").splitlines(), ends)


def compare(shown: list[str], whole: list[str], ends: list[int]) -> Losses:
    """Follow the lines on the display through the whole text; `ends` are the numbers of lines at each cut.

    Raises:
        AssertionError: they are not the whole text but for at most one line at each cut.
    """
    position, start, cuts = 0, 0, 0
    for number, end in enumerate(ends):
        piece = shown[start:end]
        if piece:  # what was lost at the cuts before it shows now
            fits = (at for at in range(position, position + cuts + 1) if whole[at : at + len(piece)] == piece)
            at = next(fits, None)
            assert at is not None, f"before cut {number} more than a line a cut was lost, or one was repeated"
            position, start, cuts = at + len(piece), end, 0
        cuts += 1
    return Losses(shown=len(shown), lost=position - len(shown))


def make_model(folder: Path) -> Path:
    """A small model file, made by another process: an interpreter in this one would not survive the forks that follow."""
    subprocess.run([sys.executable, Path(__file__).with_name("model_files.py"), folder / "models"], check=True)
    return folder / "models" / "gru-int8.tflite"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cuts", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--model", type=Path, metavar="FILE", help="[default: a small one with random weights]")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = options.model or make_model(folder)
        losses = cut_power(model, folder, options.cuts, options.seed)
    print(f"{options.cuts} cuts: {losses.shown} lines shown, {losses.lost} lost, every session readable")


if __name__ == "__main__":
    main()
