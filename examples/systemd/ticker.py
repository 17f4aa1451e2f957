"""Write a line of text every so many seconds to a display, and continue the text after a power cut.

    python ticker.py bard.tflite --session bard.session --seconds 10 [--display /dev/ttyUSB0] [--width 40]

The display is stdout, or whatever takes lines: a terminal, a serial line, a pipe. The session covers a line once `generate` has
returned it, before it is shown, so a power cut loses at most one line, and no line is shown twice.
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


def lines(generator, session, seed):
    """The lines of one endless text that are not blank."""
    while True:
        line = generator.generate(length=LONGEST, stop=["\n"], session=session, seed=seed)
        if line.strip():
            yield line


def main(arguments=None):
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--session", type=Path, required=True, help="file that the text is resumed from")
    parser.add_argument("--seconds", type=float, default=10, help="from a line to the next")
    parser.add_argument("--display", type=Path, help="what to write to [default: stdout]")
    parser.add_argument("--width", type=int, default=40, help="characters that the display has in a row")
    parser.add_argument("--lines", type=int, help="how many to write [default: no end]")
    parser.add_argument("--seed", type=int)
    options = parser.parse_args(arguments)
    opened = options.display.open("a", encoding="utf-8") if options.display else contextlib.nullcontext(sys.stdout)
    with opened as display:
        generator = load(options.model)
        for line in itertools.islice(lines(generator, options.session, options.seed), options.lines):
            print(textwrap.fill(line, options.width), file=display, flush=True)
            time.sleep(options.seconds)


if __name__ == "__main__":
    try:
        main()
    except CharedgeError as error:
        sys.exit(f"{error}")
