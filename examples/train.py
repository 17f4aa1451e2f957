"""From a text to a model file in Python: python examples/train.py book.txt book.tflite

The run folder is made beside the file.
"""

import sys
from pathlib import Path

import charedge

if len(sys.argv) != 3:
    sys.exit(__doc__)
text, file = sys.argv[1], Path(sys.argv[2])


def show(report: charedge.Report) -> None:
    """Print the messages, and not the progress in between."""
    if report.message:
        print(report.message)


try:
    run = charedge.train(text, file.with_suffix(""), preset="small", progress=show)
    conversion = charedge.convert(run, file, progress=show)
    print(f"{file}: {conversion.bytes:,} bytes, {conversion.verified[0].nats_per_character:.4f} nats per character")
    print(charedge.load(file).generate(length=200, seed=1))
except charedge.CharedgeError as error:
    sys.exit(str(error))
except KeyboardInterrupt:  # during the training, it was saved: `charedge train --resume --output` continues it
    sys.exit(130)
