"""Damage a model file in thousands of ways, and check that none of them crashes, hangs or changes the text.

    python tests/fuzz.py --count 10000 --seed 1 [--model FILE]

Every damaged file is opened in a process of its own. It must be refused with a CharedgeError, or be harmless: generate exactly
the texts of the undamaged file. Either must be done within 2 seconds of processor time and 200 MB. The seed and the number of a
case reproduce it: `--case NUMBER --keep FILE` runs that one alone and leaves the damaged file behind.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import resource
import select
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from corruptions import CORRUPTIONS, damage

from charedge import CharedgeError, load
from charedge.program import run

MAX_SECONDS = 2.0  # of processor time: the machine may be busy with something else
MAX_WALL_SECONDS = 30.0  # after which it hangs
MAX_MEGABYTES = 200.0
SPARE_MEGABYTES = 1000  # of address space beyond that, where allocations begin to fail
MAX_MESSAGE = 500

REFUSED, HARMLESS = "refused", "harmless"


@dataclass(frozen=True)
class Outcome:
    """The outcome of a case: its verdict, time and memory."""

    verdict: str
    """`refused` or `harmless`; anything else says what went wrong."""
    seconds: float = 0.0
    megabytes: float = 0.0

    @property
    def passed(self) -> bool:
        return self.verdict in (REFUSED, HARMLESS)


def isolated(function: Callable[[], str], wall_seconds: float = MAX_WALL_SECONDS) -> Outcome:
    """Run a function in a forked process, and return the verdict that it returns, or how it failed."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _run_child(function, writer)
    os.close(writer)
    try:
        ready, _, _ = select.select([reader], [], [], wall_seconds)
        if not ready:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return Outcome(f"hangs for {wall_seconds:g} s")
        with os.fdopen(os.dup(reader), "rb") as pipe:
            report = pipe.read()
    finally:
        os.close(reader)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return Outcome(f"crashes with {signal.Signals(os.WTERMSIG(status)).name}")
    if not report:
        return Outcome(f"ends the process with status {os.WEXITSTATUS(status)}")
    outcome = Outcome(**json.loads(report))
    if outcome.passed and outcome.seconds > MAX_SECONDS:
        return Outcome(f"takes {outcome.seconds:.1f} s ({outcome.verdict})", outcome.seconds, outcome.megabytes)
    if outcome.passed and outcome.megabytes > MAX_MEGABYTES:
        return Outcome(f"takes {outcome.megabytes:.0f} MB ({outcome.verdict})", outcome.seconds, outcome.megabytes)
    return outcome


def _run_child(function: Callable[[], str], writer: int) -> None:
    """The forked process: never returns."""
    try:
        before = _peak_megabytes()
        limit = _address_space() + int((MAX_MEGABYTES + SPARE_MEGABYTES) * 1e6)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        try:
            verdict = function()
        except BaseException as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            verdict = f"raises {type(error).__name__} in {Path(where.filename).name}:{where.lineno} ({str(error)[:100]})"
        usage = resource.getrusage(resource.RUSAGE_SELF)
        report = {
            "verdict": verdict,
            "seconds": usage.ru_utime + usage.ru_stime,
            "megabytes": _peak_megabytes() - before,
        }
        os.write(writer, json.dumps(report).encode())
    finally:
        os._exit(0)


def _peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6  # Linux counts kibibytes


def _address_space() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def observe(path: Path) -> list[str]:
    """Texts that identify a model file: with and without a prompt, sampled and greedy."""
    generator = load(path)
    return [
        generator.generate("A", 40, seed=1),
        generator.generate("", 40, seed=2),
        generator.generate("The ", 40, temperature=0),
        *generator.generate_batch(["", "A"], 20, seed=3),
    ]


def judge(path: Path, expected: list[str]) -> str:
    """A verdict on a damaged file."""
    try:
        texts = observe(path)
    except CharedgeError as error:
        return _complaint(str(error), path) or REFUSED
    if texts != expected:
        return "changes the text"
    for options in ([], ["--json"]):
        with contextlib.redirect_stdout(io.TextIOWrapper(io.BytesIO(), encoding="utf-8")):
            if run(["info", str(path), *options]) != 0:
                return f"generates the text, but `info {' '.join(options)}` fails"
    return HARMLESS


def _complaint(message: str, path: Path) -> str:
    """What is wrong with an error message, which must be one sentence that names the file and the remedy."""
    rest = message.replace(str(path), "")
    if rest == message or "\n" in message or not message.endswith(".") or ": " not in rest or len(rest) > MAX_MESSAGE:
        return f"is refused in bad words: {message[:MAX_MESSAGE]!r}"
    return ""


def examine(data: bytes, path: Path, expected: list[str]) -> Outcome:
    """Write a damaged file and judge it in a process of its own."""
    path.write_bytes(data)
    return isolated(lambda: judge(path, expected))


def observe_undamaged(path: Path, make: bool) -> list[str]:
    """The texts of the undamaged file, which is made first if asked.

    In a process of its own: this one never starts an interpreter, whose threads a fork would lose.
    """
    outcome = isolated(lambda: json.dumps(observe(make_model(path) if make else path)))
    if not outcome.verdict.startswith("["):
        sys.exit(f"{path}, undamaged, {outcome.verdict}")
    return json.loads(outcome.verdict)


def make_model(path: Path) -> Path:
    """A small model file with random weights."""
    from model_files import build_model_file

    return build_model_file(path, quantization="int8").path


class Table:
    """The outcomes by corruption."""

    def __init__(self) -> None:
        self.counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.megabytes: defaultdict[str, float] = defaultdict(float)

    def add(self, name: str, outcome: Outcome) -> None:
        self.counts[name][outcome.verdict if outcome.passed else "violations"] += 1
        self.seconds[name] = max(self.seconds[name], outcome.seconds)
        self.megabytes[name] = max(self.megabytes[name], outcome.megabytes)

    def __str__(self) -> str:
        total = sum(self.counts.values(), Counter())
        rows = [(name, self.counts[name], self.seconds[name], self.megabytes[name]) for name in CORRUPTIONS if name in self.counts]
        rows.append(("all", total, max(self.seconds.values(), default=0), max(self.megabytes.values(), default=0)))
        width = max(len(name) for name, *_ in rows)
        lines = [f"{'corruption':{width}}  cases  refused  harmless  violations  most s  most MB"]
        lines += [
            f"{name:{width}}  {sum(counts.values()):5}  {counts[REFUSED]:7}  {counts[HARMLESS]:8}  {counts['violations']:10}"
            f"  {seconds:6.2f}  {megabytes:7.0f}"
            for name, counts, seconds, megabytes in rows
        ]
        return "\n".join(lines)


def main(options: Sequence[str] | None = None) -> int:
    """Run the program; the exit status is 1 if any case was neither refused nor harmless."""
    parser = argparse.ArgumentParser(description="Damage a model file in many ways: nothing worse than a refusal may come of it.")
    parser.add_argument("--count", type=int, default=10_000, help="how many cases [default: 10000]")
    parser.add_argument("--seed", type=int, default=1, help="of all cases [default: 1]")
    parser.add_argument("--model", type=Path, metavar="FILE", help="the undamaged file [default: a small one with random weights]")
    parser.add_argument("--case", type=int, metavar="NUMBER", help="run this case alone")
    parser.add_argument("--keep", type=Path, metavar="FILE", help="with --case: where to leave the damaged file")
    arguments = parser.parse_args(options)
    with tempfile.TemporaryDirectory() as folder:
        model = arguments.model or Path(folder) / "model.tflite"
        expected = observe_undamaged(model, make=arguments.model is None)
        data, path = model.read_bytes(), Path(folder) / "damaged.tflite"
        cases = range(arguments.count) if arguments.case is None else [arguments.case]
        table, violations, start = Table(), 0, time.monotonic()
        for done, case in enumerate(cases, start=1):
            name, damaged = damage(data, arguments.seed, case)
            if arguments.keep:
                arguments.keep.write_bytes(damaged)
            outcome = examine(damaged, path, expected)
            table.add(name, outcome)
            if not outcome.passed:
                violations += 1
                print(f"case {case} of seed {arguments.seed} ({name}) {outcome.verdict}", file=sys.stderr, flush=True)
            if done % 500 == 0:
                print(f"{done:,} cases, {time.monotonic() - start:.0f} s, {violations} violations", file=sys.stderr, flush=True)
    print(table)
    if violations:
        print("to reproduce a case: python tests/fuzz.py --seed SEED --case NUMBER --keep damaged.tflite", file=sys.stderr)
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
