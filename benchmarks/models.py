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
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from charedge.runtime import Generator
from charedge.runtime.bundled import FOLDER, NAMES
from process import charedge, output

WINDOWS = Path(__file__).with_name("windows.py")
SHAKESPEARE = (
    "Writes lines that look like those of Shakespeare's plays: speakers, verse, words, and hardly any sense. It knows the 65 "
    "characters of its text, no accents and no digit but 3; it has read a million characters and can repeat some of them."
)
QUIJOTE = "Writes Spanish in the manner of Don Quijote, and hardly any sense; it knows the characters of its text alone."
NOTES = {"shakespeare": SHAKESPEARE, "shakespeare-tiny": SHAKESPEARE, "quijote": QUIJOTE}


@dataclass(frozen=True)
class Recipe:
    """How a model is trained."""

    options: tuple[object, ...]
    teachers: tuple[str, ...] = ()
    """Recipes whose models it learns from: what they predict, and as much text of their own as is theirs to learn. It begins with
    the weights of the last."""


RECIPES = {
    "shakespeare": Recipe(("--preset", "large")),
    "shakespeare-tiny": Recipe(("--preset", "small", "--epochs", 30)),
    "quijote": Recipe(("--preset", "base")),
}
"""What each is trained with; the search that they come from is in docs/training.md."""
WRITTEN_CHARACTERS, WRITTEN_ROWS = 1_000_000, 16


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
        train(name, options.runs, options.corpus or name.partition("-")[0])
        model = FOLDER / f"{name}.tflite" if name in NAMES else options.runs / f"{name}.tflite"
        card = ("--name", name, "--author", "charedge", "--license", "Apache-2.0", "--notes", NOTES[name])
        run_charedge("convert", run, "--output", model, "--fit-temperature", *card)
        report(name, run, model)


def train(name: str, runs: Path, corpus: str) -> None:
    """A training from its beginning, or from where it was stopped; before it those of its teachers."""
    run, recipe = runs / name, RECIPES[name]
    for teacher in recipe.teachers:
        train(teacher, runs, corpus)
    runs.mkdir(parents=True, exist_ok=True)
    if (run / "checkpoints").exists():
        run_charedge("train", "--output", run, "--resume")
    elif recipe.teachers:
        teachers = [runs / teacher for teacher in recipe.teachers]
        texts = [write(teacher, seed) for seed, teacher in enumerate(teachers)]
        taught = [part for teacher in teachers for part in ("--teacher", teacher)]
        split = ("--validation-split", held_out_share(teachers[0], texts))
        run_charedge("train", *texts, corpus, "--output", run, *recipe.options, *split, "--init-from", teachers[-1], *taught)
    else:
        run_charedge("train", corpus, "--output", run, *recipe.options)


def write(run: Path, seed: int) -> Path:
    """A text by a finished run, calibrated, so that it is as varied as what the run has read."""
    model, text = run.with_suffix(".tflite"), run.with_suffix(".txt")
    run_charedge("convert", run, "--output", model, "--fit-temperature")
    rows = Generator.load(model).generate_batch([""] * WRITTEN_ROWS, length=WRITTEN_CHARACTERS // WRITTEN_ROWS, seed=seed)
    text.write_text("\n".join(rows), encoding="utf-8")
    return text


def held_out_share(run: Path, texts: Sequence[Path]) -> float:
    """What share of these texts and the run's, in this order, is what the run held out."""
    characters = json.loads((run / "config.json").read_text())["corpus"]["characters"]
    held_out = len((run / "held_out.txt").read_text(encoding="utf-8"))
    return (held_out - 0.5) / (characters + sum(len(text.read_text(encoding="utf-8")) for text in texts))


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
