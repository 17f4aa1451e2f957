"""Kill programs that write in a session in the middle of saving it, again and again, and count what is lost.

    python tests/power_cuts.py [--cuts 200] [--seed 1] [--model FILE]

Each time a program is killed (-9) before some line of the code that locks and saves, in a process of its own. The session must then
be readable and free. Two programs are killed so:

- The ticker of examples/systemd: the lines on the display must continue where the session stands, with at most one line missing at
  each cut, and none twice.
- `charedge generate --session` into a file: the file must have all that the session covers. It may have more; it is cut there
  before the text is resumed, and must in the end be the text that was never interrupted. The model has adapted to a prompt, so
  that the session keeps a matrix.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from charedge.runtime import cli, files, lock, saved_text, session
from charedge.runtime.adaptation import hidden_columns
from charedge.runtime.model_file import read_model_file

from charedge import program

TICKER = Path(__file__).parents[1] / "examples" / "systemd" / "ticker.py"
SAVING = {files.__file__, lock.__file__, session.__file__}
MOST_STEPS = 450  # lines of the code that locks and saves until a cut: about five saves
HANDING_OVER = SAVING | {saved_text.__file__, cli.__file__}
MOST_LINES = 1000  # of these until a cut: about ten saves
PROMPT = "Read and learned before the first cut. "


@dataclass(frozen=True)
class Losses:
    """The lines shown and lost after some cuts."""

    shown: int
    """Lines that were displayed."""
    lost: int
    """Lines that were not: at most one per cut is allowed."""


def cut(program: Callable[[], object], step: int, watched: set[str] = SAVING) -> bool:
    """Run a program in a process of its own until it has run a number of lines of some files; 0 is no end.

    Returns:
        Whether it was killed then, and did not end before.

    Raises:
        AssertionError: it failed.
    """
    child = os.fork()
    if child == 0:
        try:
            _kill_before(step, watched)
            program()
        except BaseException as error:  # this is a copy of the process, which must end here
            print(f"the program failed: {error!r}", file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    assert killed or status == 0, f"the program ended with status {status}"
    return killed


def _kill_before(step: int, watched: set[str]) -> None:
    """In the child: a SIGKILL before the line of the files that has the number `step`; 0 is none."""
    steps = itertools.count(1)

    def trace(frame, event, argument):
        if frame.f_code.co_filename not in watched:
            return None
        if event == "line" and next(steps) == step:
            os.kill(os.getpid(), signal.SIGKILL)
        return trace

    sys.settrace(trace)


def _tick(arguments: list[str]) -> None:
    """In the child: the ticker."""
    spec = importlib.util.spec_from_file_location("ticker", TICKER)
    assert spec is not None
    assert spec.loader is not None
    ticker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(ticker)
    ticker.main(arguments)


def _generate(arguments: list[str], text: Path) -> None:
    """In the child: `charedge generate`, which appends to a file and saves after every character."""
    saved_text.SESSION_SECONDS = 0.0
    with text.open("a", encoding="utf-8") as sys.stdout:
        status = program.run(["generate", *arguments])
    if status:
        raise SystemExit(status)


def cut_power(model: Path, folder: Path, cuts: int, seed: int) -> Losses:
    """Cut the ticker's power a number of times, and compare what it displayed with a text that was never interrupted.

    Raises:
        AssertionError: a session is unreadable, or more is lost than may be.
    """
    display, state, moments = folder / "display", folder / "session.json", random.Random(seed)
    arguments = [str(model), "--characters-per-second", "1000000", "--width", "1000", "--seed", "7"]
    manifest = read_model_file(model).manifest
    display.touch()
    ends = []
    ticking = [*arguments, "--session", str(state), "--display", str(display)]
    for _ in range(cuts):
        assert cut(lambda: _tick(ticking), moments.randint(1, MOST_STEPS))
        if state.exists():
            session.Session.load(state, manifest.flatbuffer_sha256, manifest.state_size, manifest.vocabulary_size)
        ends.append(len(display.read_text(encoding="utf-8").splitlines()))
    shown = display.read_text(encoding="utf-8").splitlines()
    whole = folder / "whole"
    count = str(len(shown) + cuts)
    uninterrupted = [*arguments, "--session", str(folder / "whole.json"), "--display", str(whole), "--lines", count]
    assert not cut(lambda: _tick(uninterrupted), 0)
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


def cut_generate(model: Path, folder: Path, cuts: int, seed: int) -> int:
    """Kill `charedge generate --session` a number of times, each time in a file that was cut where the session stands.

    Returns:
        The number of characters that the session covers in the end.

    Raises:
        AssertionError: a session is unreadable or covers what the file lacks, or the file has another text.
    """
    text, whole, state, moments = folder / "text", folder / "whole text", folder / "text.json", random.Random(seed)
    manifest = read_model_file(model).manifest
    options, state_of_whole = [str(model), "--length", str(20 * cuts), "--seed", "7", "--session"], folder / "whole text.json"
    adapting = [str(model), "--length", "1", "--seed", "7", "--prompt", PROMPT, "--adapt", "--adapt-rate", "0.02", "--session"]
    assert not cut(lambda: _generate([*adapting, str(state_of_whole)], folder / "before"), 0)
    shutil.copy(state_of_whole, state)
    before = (folder / "before").read_text(encoding="utf-8")
    assert not cut(lambda: _generate([*options, str(state_of_whole)], whole), 0)
    expected, covered = whole.read_text(encoding="utf-8"), 0
    for number in range(cuts):
        assert cut(lambda: _generate([*options, str(state)], text), moments.randint(1, MOST_LINES), HANDING_OVER)
        sizes = manifest.state_size, manifest.vocabulary_size
        saved = session.Session.load(state, manifest.flatbuffer_sha256, *sizes, hidden_columns(manifest))
        assert saved.learned is not None, f"after cut {number} the session lacks what was learned"
        covered = position(saved.tail, before + expected) - len(before)
        written = text.read_text(encoding="utf-8")
        assert expected.startswith(written), f"after cut {number} the file has another text"
        assert covered <= len(written), f"after cut {number} the session covers {covered} characters, the file has {len(written)}"
        text.write_text(written[:covered], encoding="utf-8")
    return covered


def position(tail: str, text: str) -> int:
    """Where the only place of a tail in a text ends.

    Raises:
        AssertionError: it is not in the text once.
    """
    assert text.count(tail) == 1, "the session is one of another text"
    return text.index(tail) + len(tail)


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
        covered = cut_generate(model, folder, options.cuts, options.seed)
    print(f"{options.cuts} cuts: {losses.shown} lines shown, {losses.lost} lost, every session readable")
    print(f"{options.cuts} cuts: {covered} characters of one text, in the file each time before the session covered them")


if __name__ == "__main__":
    main()
