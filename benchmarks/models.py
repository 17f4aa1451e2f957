"""Train the models that come with the package from their corpus, convert them, and print what they are worth.

python benchmarks/models.py                          all of them, hours on two cores; Ctrl-C saves, the same line goes on
python benchmarks/models.py shakespeare-tiny         one of them
python benchmarks/models.py quijote --corpus quijote.txt
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from pathlib import Path

from charedge.runtime.bundled import FOLDER, NAMES
from process import charedge, output

WINDOWS = Path(__file__).with_name("windows.py")
SHAKESPEARE = (
    "Writes lines that look like those of Shakespeare's plays: speakers, verse, words, and hardly any sense. It knows the 65 "
    "characters of its text, no accents and no digit but 3; it has read a million characters and can repeat some of them."
)
QUIJOTE = "Writes Spanish in the manner of Don Quijote, and hardly any sense; it knows the characters of its text alone."
NOTES = {"shakespeare": SHAKESPEARE, "shakespeare-tiny": SHAKESPEARE, "quijote": QUIJOTE}
RECIPES = {
    "shakespeare": ("--preset", "large"),
    "shakespeare-tiny": ("--preset", "small", "--epochs", 30),
    "quijote": ("--preset", "base"),
}
"""What each is trained with; the search that they come from is in docs/training.md."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(RECIPES)}; those of the package by default")
    parser.add_argument("--corpus", help="where the text is; the corpus of the model's name by default")
    parser.add_argument("--runs", type=Path, default=Path("build/runs"), help="where the trainings are kept")
    options = parser.parse_args()
    for name in options.names or NAMES:
        if name not in RECIPES:
            parser.error(f"{name} is unknown: choose of {', '.join(RECIPES)}")
        run = options.runs / name
        train(name, run, options.corpus or name.partition("-")[0])
        model = FOLDER / f"{name}.tflite" if name in NAMES else options.runs / f"{name}.tflite"
        card = ("--name", name, "--author", "charedge", "--license", "Apache-2.0", "--notes", NOTES[name])
        run_charedge("convert", run, "--output", model, "--fit-temperature", *card)
        report(name, run, model)


def train(name: str, run: Path, corpus: str) -> None:
    """A training from its beginning, or from where it was stopped."""
    run.parent.mkdir(parents=True, exist_ok=True)
    if (run / "checkpoints").exists():
        run_charedge("train", "--output", run, "--resume")
    else:
        run_charedge("train", corpus, "--output", run, *RECIPES[name])


def report(name: str, run: Path, model: Path) -> None:
    """The held-out part, read once by the file and by nanoGPT's protocol; and whether an epoch had to be chosen."""
    with (run / "history.csv").open() as file:
        losses = [float(epoch["validation_nats_per_character"]) for epoch in csv.DictReader(file)]
    carried = json.loads(run_charedge("score", model, run / "held_out.txt", "--json"))
    windows = float(output(sys.executable, WINDOWS, model, run / "held_out.txt"))
    print(
        f"{name}: {model.stat().st_size:,} bytes; {carried['nats_per_character']:.4f} nats/character over "
        f"{carried['characters']:,} held-out characters with the state carried, {windows:.4f} in windows "
        f"of 256 from a zero state; the best of {len(losses)} epochs was number {losses.index(min(losses)) + 1}"
    )


def run_charedge(*arguments: object) -> str:
    """What a command wrote to stdout; if it fails, this program ends with it."""
    return output(*charedge(sys.executable, *arguments))


if __name__ == "__main__":
    main()
