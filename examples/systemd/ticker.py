"""Write a line of text to a display every few seconds, and continue the text after a power cut.

    python ticker.py bard.tflite --session bard.session --seconds 10 [--display /dev/ttyUSB0] [--width 40]

The display is stdout or a file to which lines can be written: a terminal, a serial line, a pipe. `generate` saves the session
before it returns a line, so a power cut loses at most one line, and no line is shown twice.
"""

import argparse
import contextlib
import itertools
import sys
import textwrap
import time
from pathlib import Path

from charedge import CharedgeError, load

LONGEST = 400  # characters, for a model that never ends a line


def lines(model, session, seed):
    """The lines of one endless text, without blank lines."""
    while True:
        line = model.generate(length=LONGEST, stop=["\n"], session=session, seed=seed)
        if line.strip():
            yield line


def main(arguments=None):
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--session", type=Path, required=True, help="file that the text is resumed from")
    parser.add_argument("--seconds", type=float, default=10, help="seconds between two lines [default: 10]")
    parser.add_argument("--display", type=Path, help="file or device to write to [default: stdout]")
    parser.add_argument("--width", type=int, default=40, help="characters in a row of the display [default: 40]")
    parser.add_argument("--lines", type=int, help="number of lines to write [default: no limit]")
    parser.add_argument("--seed", type=int, help="the same seed gives the same text [default: random]")
    options = parser.parse_args(arguments)
    opened = options.display.open("a", encoding="utf-8") if options.display else contextlib.nullcontext(sys.stdout)
    with opened as display:
        model = load(options.model)
        for line in itertools.islice(lines(model, options.session, options.seed), options.lines):
            print(textwrap.fill(line, options.width), file=display, flush=True)
            time.sleep(options.seconds)


if __name__ == "__main__":
    try:
        main()
    except CharedgeError as error:
        sys.exit(f"{error}")
