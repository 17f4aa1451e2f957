"""Show a sentence or two a page on an e-ink screen, here a PNG file: python eink.py bard.tflite --session bard.session

What does not fit on a page comes on the next one. The session is saved before a text is shown: a power cut loses at most that text,
and the screen keeps its page without power.
"""

import argparse
import sys
import time
from itertools import count, islice
from pathlib import Path

from screens import EInk, wrap

from charedge import CharedgeError, load


def main(arguments=None):
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--session", type=Path, required=True, help="file that the text is resumed from")
    parser.add_argument("--picture", type=Path, default=Path("page.png"), help="file to draw to [default: page.png]")
    parser.add_argument("--font", type=Path, help="TrueType font [default: Pillow's, for Latin letters]")
    parser.add_argument("--seconds", type=float, default=60, help="seconds for each page [default: 60]")
    parser.add_argument("--pages", type=int, help="number of pages [default: no limit]")
    parser.add_argument("--seed", type=int, help="the same seed gives the same text [default: random]")
    options = parser.parse_args(arguments)
    if options.seconds < 0 or (options.pages or 0) < 0:
        parser.error("--seconds and --pages must be at least 0")
    try:
        display = EInk(options.picture, options.font)
    except OSError as error:
        parser.error(f"--font {options.font} is not a readable font: {error}")
    model = load(options.model)
    texts = (model.generate(length=40, end_at="sentence", session=options.session, seed=options.seed) for _ in count())
    lines = (wrap(" ".join(text.split()), display) for text in texts)
    pages = (part[start : start + display.rows] for part in lines for start in range(0, len(part), display.rows))
    for number, page in enumerate(islice(pages, options.pages)):
        if number:
            time.sleep(options.seconds)
        display.show(page)


if __name__ == "__main__":
    try:
        main()
    except ModuleNotFoundError as error:
        sys.exit(f"{error}: pip install pillow")
    except (CharedgeError, OSError) as error:
        sys.exit(f"{error}")
    except KeyboardInterrupt:
        sys.exit(130)
