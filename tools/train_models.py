"""Train the bundled models from their corpus, convert them, and print how well they predict the held-out text.

python tools/train_models.py                          all of them, hours on two cores; Ctrl-C saves, the same line continues
python tools/train_models.py shakespeare-tiny         one of them
python tools/train_models.py quijote --corpus quijote.txt
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Any

from charedge.runtime.bundled import FOLDER, NAMES

import charedge
from charedge.display import Display

WINDOWS = Path(__file__).parents[1] / "benchmarks" / "windows.py"
SHAKESPEARE = (
    "Writes lines that look like those of Shakespeare's plays: speakers, verse, words, and hardly any sense. It knows the 65 "
    "characters of its text, no accents and no digit but 3; it has read a million characters and can repeat some of them."
)
QUIJOTE = "Writes Spanish in the manner of Don Quijote, and hardly any sense; it knows the characters of its text alone."
NOTES = {"shakespeare": SHAKESPEARE, "shakespeare-tiny": SHAKESPEARE, "quijote": QUIJOTE}
RECIPES: dict[str, dict[str, Any]] = {
    "shakespeare": {"preset": "large"},
    "shakespeare-tiny": {"preset": "small", "epochs": 30},
    "quijote": {"preset": "base"},
}
"""The options of each training; docs/training-experiments.md has the search that led to them."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(RECIPES)}; by default the bundled ones")
    parser.add_argument("--corpus", help="the text; by default the corpus of the model's name")
    parser.add_argument("--runs", type=Path, default=Path("build/runs"), help="folder for the trainings")
    options = parser.parse_args()
    for name in options.names or NAMES:
        if name not in RECIPES:
            parser.error(f"{name} is unknown: choose one of {', '.join(RECIPES)}")
        try:
            make(name, options.corpus or name.partition("-")[0], options.runs)
        except charedge.CharedgeError as error:
            sys.exit(str(error))


def make(name: str, corpus: str, runs: Path) -> None:
    """Train, or continue where a training was stopped; convert; measure the file."""
    folder, model = runs / name, FOLDER / f"{name}.tflite" if name in NAMES else runs / f"{name}.tflite"
    runs.mkdir(parents=True, exist_ok=True)
    with Display() as display:
        if (folder / "checkpoints").exists():
            run = charedge.train(output=folder, resume=True, progress=display)
        else:
            run = charedge.train(corpus, folder, progress=display, **RECIPES[name])
        charedge.convert(
            run,
            model,
            fit_temperature=True,
            name=name,
            author="charedge",
            license="Apache-2.0",
            notes=NOTES[name],
            progress=display,
        )
    report(name, run, model)


def report(name: str, run: charedge.Run, model: Path) -> None:
    """The losses of the held-out text, with the state carried and by nanoGPT's protocol."""
    losses = [epoch.validation_nats_per_character for epoch in run.history()]
    carried = charedge.load(model).score(run.held_out())
    windows = subprocess.run([sys.executable, WINDOWS, model, run.path / "held_out.txt"], stdout=subprocess.PIPE, check=True)
    print(
        f"{name}: {model.stat().st_size:,} bytes; {carried.nats_per_character:.4f} nats per character over "
        f"{carried.characters:,} held-out characters with the state carried, {float(windows.stdout):.4f} in windows "
        f"of 256 from a zero state; the best of {len(losses)} epochs was number {losses.index(min(losses)) + 1}"
    )


if __name__ == "__main__":
    main()
