"""charRNN (an LSTM on Don Quijote, after Karpathy's char-rnn) with charedge. Prints a row for each step.

python examples/reproductions/charrnn.py quijote.txt --output charrnn        60 epochs, about an hour
"""

import argparse
import csv
import json
import re
import time
from pathlib import Path

from rows import charedge, row, run_program

VOCABULARY = Path(__file__).with_name("charrnn-vocabulary.txt")
RECIPE = {
    "--batching": "carried",
    "--batch-size": 32,
    "--learning-rate": 0.002,
    "--learning-rate-decay": "cosine",
    "--warmup": 100,
    "--clip-norm": 1,
    "--output-dropout": 0.2,
    "--weight-drop": 0.2,
}
"""charedge's recipe for charRNN's network. It trains on each character once per epoch; charRNN's trains a hundred times."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("text", type=Path, help="text file")
    parser.add_argument("--output", type=Path, required=True, help="new folder for all results")
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--units", type=int, default=256)
    parser.add_argument("--stride", type=int, default=10, help="evaluate every n-th window [default: 10]")
    options = parser.parse_args()
    if options.output.exists():
        parser.error(f"--output {options.output} exists: give a new folder")
    run, model = options.output / "run", options.output / "quijote.tflite"
    show_data(options.text)
    options.output.mkdir(parents=True)
    show_training(options.text, run, options.epochs, options.units)
    show_evaluation(run, options.stride)
    charedge("convert", run, "--output", model)
    show_generation(model)


def show_data(path: Path) -> None:
    """B1 to B3: the text, charRNN's 114 characters, and the last fifth held out."""
    from charedge.runtime.vocabulary import Vocabulary
    from charedge.trainer.encoding import encode_corpus

    vocabulary = Vocabulary.parse(VOCABULARY.read_bytes(), str(VOCABULARY))
    encoded = encode_corpus([str(path)], "none", vocabulary)
    row("B1", f"{encoded.characters:,} characters")
    row("B2", f"a fixed list of {len(vocabulary) - 1} characters: {len(encoded.ids):,} kept, {encoded.skipped:,} skipped")
    boundary = int(len(encoded.ids) * 0.8)
    row("B3", f"{boundary:,} to train, {len(encoded.ids) - boundary:,} to test")


def show_training(text: Path, run: Path, epochs: int, units: int) -> None:
    """B5 to B7: charRNN's network and split (the preset), charedge's recipe."""
    recipe = [part for option in RECIPE.items() for part in option]
    network = ("--preset", "charrnn", "--vocabulary", VOCABULARY, "--units", units)
    _, said = charedge("train", text, "--output", run, *network, *recipe, "--epochs", epochs)
    row("B5", re.findall(r"distinct; (.*?);", said)[0])
    with (run / "history.csv").open() as file:
        history = list(csv.DictReader(file))
    seconds = sorted(float(epoch["seconds"]) for epoch in history)[len(history) // 2]
    row("B6", f"Adam, batches of 32 streams, {len(history)} epochs of {seconds:.0f} s, with a bar and validation each")
    losses = [float(epoch["validation_nats_per_character"]) for epoch in history]
    shown = ", ".join(f"{losses[i]:.4f} ({i + 1})" for i in range(0, len(losses), max(1, len(losses) // 6)))
    row("B7", f"validation, state carried: {shown}, best {min(losses):.4f}")


def show_evaluation(run: Path, stride: int) -> None:
    """B4: the one character after every window of 100, as in charRNN's training and validation."""
    protocol = ("--protocol", "last-character", "--stride", stride)
    result = json.loads(charedge("evaluate", run, *protocol, "--json")[0])
    row("B4", f"last character of {result['predictions']:,} windows of 100: {result['nats_per_character']:.4f} nats")


def show_generation(model: Path) -> None:
    """B8 and B9: greedy text repeats itself, drawn text does not; with the state carried, a character is one step."""
    from charedge import load

    generator = load(model)
    greedy = generator.generate("El ingenioso hidalgo ", length=2000, temperature=0)
    drawn = generator.generate("El ingenioso hidalgo ", length=2000, temperature=0.8, seed=1)
    for name, text in (("greedy", greedy), ("drawn at 0.8", drawn)):
        pieces = [text[i : i + 20] for i in range(1000, len(text) - 20)]
        row("B8", f"{name}: {len(set(pieces))} of {len(pieces)} pieces of 20 characters differ; ends {text[-50:]!r}")
    start = time.perf_counter()
    generator.generate("En un lugar de la Mancha", length=5000, seed=1)
    carried = (time.perf_counter() - start) / 5000
    row("B9", f"{carried * 1000:.4f} ms a character with the state carried")


if __name__ == "__main__":
    run_program(main)
