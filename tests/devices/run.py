"""Run the runtime and its tests on the devices of `targets.py`, installed as a device would install it, under emulation.

    python tests/devices/run.py [--smoke] [--target NAME]... [--cache FOLDER] [--jobs N]

Needs Debian's apt (no root) and the network. Downloads are kept; everything else is made again each time.
Nothing measured here is a speed of a device.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import debian
from emulation import fetch_system
from targets import NOT_RUN, SMOKE, SMOKE_FILES, SMOKE_MODELS, TARGETS
from trial import Report, try_target
from workstation import REPOSITORY, build_wheels, prepare


def show(reports: Sequence[Report]) -> None:
    """A table of the targets, then what each installed, and what was left out."""
    heads = ("target", "system", "processor", "python", "numpy", "interpreter", "passed", "skipped", "difference", "MB", "s")
    rows: list[tuple[str, ...]] = [heads]
    for r in reports:
        t = r.target
        counts = (str(r.passed), str(r.skipped), f"{r.difference:.6f}", f"{r.megabytes:.0f}", f"{r.seconds:.0f}")
        rows.append((t.name, f"{t.suite} {t.architecture}", t.processor, t.python, r.numpy, r.interpreter, *counts))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    print()
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    print("\ndifference: the largest between a score there and here, nats/character; MB: all that pip put there for charedge")
    for report in reports:
        print(f"{report.target.name} has {', '.join(report.installed)}")
    for name, reason in NOT_RUN.items():
        print(f"not run: {name}: {reason}")


def main() -> int:
    """Run the program; the exit status is 1 if anything failed on any target."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help=f"only {' and '.join(SMOKE)}, and a part of the tests")
    parser.add_argument("--target", action="append", choices=[target.name for target in TARGETS], help="only this one; repeatable")
    parser.add_argument("--cache", type=Path, default=REPOSITORY / "build" / "devices", help="where to keep what was fetched")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="targets at a time [default: one a processor]")
    options = parser.parse_args()
    debian.require_apt()
    names = options.target or (SMOKE if options.smoke else [target.name for target in TARGETS])
    targets = [target for target in TARGETS if target.name in names]
    tests = REPOSITORY / "tests" / "runtime"
    files = [tests / name for name in SMOKE_FILES] if options.smoke else [tests]
    cache, start = options.cache.resolve(), time.monotonic()
    own = cache / "own"
    build_wheels(own)
    expected = prepare(cache / "expected", files, SMOKE_MODELS if options.smoke else "*.tflite")
    for target in targets:  # one after the other, as they share roots
        fetch_system(target, cache)
    with ThreadPoolExecutor(options.jobs) as pool:
        reports = list(pool.map(lambda target: try_target(target, cache, own, expected, files), targets))
    show(reports)
    print(f"\n{time.monotonic() - start:.0f} s in all")
    return 1 if any(report.failures for report in reports) else 0


if __name__ == "__main__":
    sys.exit(main())
