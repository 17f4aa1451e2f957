"""Type a text that never ends on a character LCD, here a box in the terminal: python lcd.py bard.tflite --session bard.session"""

import argparse
import signal
import sys
from pathlib import Path

from screens import CharacterLCD, typed

from charedge import CharedgeError, load


def main(arguments=None):
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--session", type=Path, help="file that the text is resumed from [default: none]")
    parser.add_argument("--characters-per-second", type=float, default=12, help="typing speed [default: 12]")
    parser.add_argument("--length", type=int, default=0, help="number of characters; 0 writes without end [default: 0]")
    parser.add_argument("--seed", type=int, help="the same seed gives the same text [default: random]")
    options = parser.parse_args(arguments)
    model, display = load(options.model), CharacterLCD(in_place=sys.stdout.isatty())
    pace, lines = options.characters_per_second, [""]
    for piece in model.stream(length=options.length, characters_per_second=pace, session=options.session, seed=options.seed):
        lines = typed(piece, lines, display)[-display.rows :]
        display.show(lines)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the stream saves the session
    try:
        main()
    except (CharedgeError, OSError) as error:
        sys.exit(f"{error}")
    except KeyboardInterrupt:
        sys.exit(130)
