"""The cost of a process: seconds from its start to its end, and its peak memory.

A child begins as a copy of the process that starts it, whose memory the kernel then counts as the child's. So this file, which
imports next to nothing, runs between the two.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Cost:
    """The cost of one process."""

    seconds: float
    peak_rss_bytes: int
    output: str
    """Its stdout."""


def cost(*command: object) -> Cost:
    """Run a command and measure it; if it fails, this program ends, too."""
    return Cost(**json.loads(output(sys.executable, __file__, *command)))


def output(*command: object) -> str:
    """The stdout of a command; if it fails, this program ends, too."""
    result = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, encoding="utf-8", check=False)
    if result.returncode:
        sys.exit(result.returncode)
    return result.stdout


def charedge(python: object, *arguments: object) -> list[object]:
    """A `charedge` command line for the charedge installed for a given Python."""
    return [python, "-m", "charedge", *arguments]


def main() -> None:
    began = time.perf_counter()
    child = subprocess.Popen(sys.argv[1:], stdout=subprocess.PIPE)
    assert child.stdout is not None
    written = child.stdout.read().decode()
    _, status, usage = os.wait4(child.pid, 0)
    seconds = time.perf_counter() - began
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        sys.exit(1)
    peak = usage.ru_maxrss if sys.platform == "darwin" else usage.ru_maxrss * 1024
    print(json.dumps(asdict(Cost(seconds, peak, written))))


if __name__ == "__main__":
    main()
