"""Write a text that never ends to a display at reading speed, and continue it after a power cut.

    python ticker.py bard.tflite --session bard.session [--display /dev/ttyUSB0] [--width 40] [--characters-per-second 10]

The display is stdout or a file to which characters can be written: a terminal, a serial line, a pipe. The session is saved before a
line is shown, so a power cut loses at most the rest of that line, and no line is shown twice.
"""

import argparse
import contextlib
import sys
import textwrap
from itertools import count, islice
from pathlib import Path

from charedge.runtime.pace import Pace, paced

from charedge import CharedgeError, load


def main(arguments=None):
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--session", type=Path, required=True, help="file that the text is resumed from")
    parser.add_argument("--characters-per-second", type=float, default=10, help="reading speed [default: 10]")
    parser.add_argument("--display", type=Path, help="file or device to write to [default: stdout]")
    parser.add_argument("--width", type=int, default=40, help="characters in a row of the display [default: 40]")
    parser.add_argument("--lines", type=int, help="number of lines to write [default: no limit]")
    parser.add_argument("--seed", type=int, help="the same seed gives the same text [default: random]")
    options = parser.parse_args(arguments)
    if options.width < 1 or (options.lines or 0) < 0:
        parser.error("--width must be at least 1, and --lines at least 0")
    opened = options.display.open("a", encoding="utf-8") if options.display else contextlib.nullcontext(sys.stdout)
    with opened as display:
        model = load(options.model)
        written = (model.generate(length=1, end_at="line", session=options.session, seed=options.seed) for _ in count())
        lines = (textwrap.fill(line, options.width) + "\n" for line in written if line.strip())
        characters = (character for line in islice(lines, options.lines) for character in line)
        for character in paced(characters, Pace(options.characters_per_second)):
            print(character, end="", file=display, flush=True)


if __name__ == "__main__":
    try:
        main()
    except (CharedgeError, OSError) as error:
        sys.exit(f"{error}")
    except KeyboardInterrupt:
        sys.exit(130)
