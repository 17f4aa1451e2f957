"""What `adapt` costs: microseconds per character of reading and of writing, without and with it, in turns.

python benchmarks/adaptation.py            a model with random weights, GRU 2 x 608, int8, 66 tokens: the shape of `shakespeare`
python benchmarks/adaptation.py m.tflite   a file of your own
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path

from arguments import positive
from step_loop import Loop, alternate

from charedge import CharedgeError, Model, load

UNITS, LAYERS = 608, 2
PROMPT = "Learned before the first character is written. " * 4


def loops(model: Model) -> dict[str, Loop]:
    """Reading is `Model.score`; writing is `Model.stream`, after a short prompt."""
    text = model.generate(length=2000, seed=1)

    def reading(adapt: bool) -> Loop:
        score = model.scorer(adapt=adapt)

        def loop(characters: int) -> None:
            score(text * (characters // len(text)) + text[: characters % len(text)])

        return loop

    def writing(adapt: bool) -> Loop:
        def loop(characters: int) -> None:
            for _ in model.stream(PROMPT, length=characters, seed=1, adapt=adapt):
                pass

        return loop

    return {
        "read": reading(False),
        "read, adapted": reading(True),
        "write": writing(False),
        "write, adapted": writing(True),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", nargs="?", type=Path)
    parser.add_argument("--rounds", type=positive, default=15)
    parser.add_argument("--seconds", type=float, default=0.1, help="of each loop in each round")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        try:
            model = load(options.model or _random_model(Path(folder)))
        except CharedgeError as error:
            sys.exit(str(error))
    times = alternate(loops(model), options.rounds, options.seconds)
    medians = {name: statistics.median(rounds) for name, rounds in times.items()}
    for name, median in medians.items():
        print(f"{name:16} {median:8.1f} us per character")
    for name in ("read", "write"):
        added = [adapted - plain for plain, adapted in zip(times[name], times[f"{name}, adapted"], strict=True)]
        medians[f"{name}, added"] = statistics.median(added)
        quartiles = statistics.quantiles(added, n=4) if len(added) > 1 else added * 3
        print(f"added to {name:7} {medians[f'{name}, added']:8.1f} us (quartiles {quartiles[0]:.1f} and {quartiles[2]:.1f})")
    if options.json:
        options.json.write_text(json.dumps(medians, indent=2) + "\n")


def _random_model(folder: Path) -> Path:
    from random_models import random_model  # what makes models is not needed to measure one, on a device

    return random_model(folder, UNITS, "int8", LAYERS)


if __name__ == "__main__":
    main()
