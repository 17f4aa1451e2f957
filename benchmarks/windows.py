"""A model file by nanoGPT's protocol: every position of consecutive windows of 256 characters, each from a zero state.

python benchmarks/windows.py MODEL TEXT
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from charedge.runtime.interpreter import Step
from charedge.runtime.model_file import read_model_file
from charedge.runtime.scoring import nats_of
from charedge.runtime.text import normalized_chunks

WINDOW = 256
ROWS = 64  # windows that are read side by side


def nats_in_windows(step: Step, ids: np.ndarray, length: int = WINDOW) -> float:
    """Nats per character of int32 [n]. What fills no window at the end is not read; a text that is shorter is one window."""
    length = min(length, len(ids) - 1)
    windows = np.lib.stride_tricks.sliding_window_view(ids, length + 1)[::length]  # [windows, length + 1]
    total = 0.0
    for first in range(0, len(windows), ROWS):
        part = windows[first : first + ROWS]
        state, logits = step.zeros(len(part)), step.empty_logits(len(part))
        for tokens, targets in zip(part.T[:-1], part.T[1:], strict=True):
            step.advance(tokens, state, logits)
            total += float(nats_of(logits, targets).sum())
    return total / (len(windows) * length)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("text", type=Path)
    parser.add_argument("--interpreter", help="as of `charedge generate`")
    options = parser.parse_args()
    contents = read_model_file(options.model)
    text = "".join(normalized_chunks([options.text.read_text(encoding="utf-8")], contents.manifest.normalization))
    ids = contents.vocabulary.encode(text)
    known = ids[ids != 0] if contents.manifest.unknown == "skip" else ids
    if len(known) < 2:
        sys.exit(f"{options.text} has fewer than two characters that the model knows: give a longer text.")
    print(nats_in_windows(Step.load(contents, interpreter=options.interpreter), known))


if __name__ == "__main__":
    main()
