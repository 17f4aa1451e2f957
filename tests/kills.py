"""Kill a short training again and again at random moments, resume it each time, and compare the weights in the end.

python tests/kills.py [--kills 20] [--seed 1]
"""

import argparse
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from pydoc_data.topics import topics

import numpy as np
from conftest import TINY, command

OPTIONS = (
    *TINY,
    "--cpu-devices",
    "2",
    "--epochs",
    "40",
    "--dropout",
    "0.2",
    "--weight-drop",
    "0.1",
    "--average",
    "0.9",
    "--checkpoint-minutes",
    "0.005",
)


def last_checkpoint(run):
    with np.load(sorted((run / "checkpoints").glob("epoch-*.npz"))[-1]) as content:
        return {key: content[key] for key in content if key.isdecimal()}


def newest(run):
    """The name of the last checkpoint, or None."""
    return max((path.name for path in (run / "checkpoints").glob("epoch-*.npz")), default=None)


def wait_for_a_moment(training, run, moments):
    """Wait for a random moment: in half of the cases during the start, in half while it trains and saves."""
    for line in training.stderr:
        if "parameters" in line:
            break
    if moments.random() < 0.5:
        time.sleep(moments.uniform(0, 3))
        return
    before = newest(run)
    while newest(run) == before and training.poll() is None:
        time.sleep(0.01)
    time.sleep(moments.uniform(0, 1))


def start(arguments):
    return subprocess.Popen(command("train", *arguments), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    moments = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        text, whole, killed = folder / "topics.txt", folder / "whole", folder / "killed"
        text.write_text("\n".join(topics[key] for key in sorted(topics))[:40_000], encoding="utf-8")
        assert start((text, "--output", whole, *OPTIONS)).wait() == 0
        arguments, kills, resumes = (text, "--output", killed, *OPTIONS), 0, 0
        while kills < options.kills:
            with start(arguments) as training:
                wait_for_a_moment(training, killed, moments)
                training.kill()
            if training.wait() == 0:
                break  # it was done before
            kills += 1
            resumes += "--resume" in arguments
            resumed = ("--output", killed, "--resume", "--checkpoint-minutes", "0.005")
            arguments = resumed if newest(killed) else (text, "--output", killed, *OPTIONS, "--overwrite")
            print(f"killed {kills}: {newest(killed) or 'nothing was saved yet'}", flush=True)
        assert start(arguments).wait() == 0
        expected, found = last_checkpoint(whole), last_checkpoint(killed)
        same = expected.keys() == found.keys() and all(np.array_equal(expected[key], found[key]) for key in expected)
        print(f"{kills} kills, {resumes} of them in a resumed training; the final weights are {'the same' if same else 'OTHERS'}")
        sys.exit(not same)


if __name__ == "__main__":
    main()
