"""TensorFlow's text generation tutorial with charedge. Prints a row for each step.

python examples/reproductions/tensorflow_tutorial.py shakespeare --output tutorial        20 epochs of a GRU of 1024
python examples/reproductions/tensorflow_tutorial.py shakespeare --output tutorial --units 512 --epochs 10
"""

import argparse
import csv
import re
import time
from pathlib import Path

import numpy as np
from rows import charedge, row, run_program


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("text", type=Path, help="text file, or the sample text shakespeare")
    parser.add_argument("--output", type=Path, required=True, help="new folder for all results")
    parser.add_argument("--units", type=int, default=1024)
    parser.add_argument("--epochs", type=int, default=20)
    options = parser.parse_args()
    if options.output.exists():
        parser.error(f"--output {options.output} exists: give a new folder")
    run, model = options.output / "run", options.output / "tutorial.tflite"
    show_data(options.text)
    options.output.mkdir(parents=True)
    show_training(options.text, run, options.units, options.epochs)
    charedge("convert", run, "--output", model)
    show_generation(model)
    show_saved_model(run, options.output / "one_step")
    show_variations(options.text, options.output, model, options.units)


def show_data(path: Path) -> None:
    """A1 to A4: the text, its ids and a batch."""
    from charedge.trainer.dataset import Windows
    from charedge.trainer.encoding import encode_corpus

    encoded = encode_corpus([str(path)], "NFC")
    vocabulary = encoded.vocabulary
    row("A1", f"{encoded.characters:,} characters, {len(vocabulary) - 1} distinct")
    text = encoded.ids.text(0, 1000)
    ids = vocabulary.encode(text)
    row(
        "A2",
        f"{len(vocabulary)} ids with {vocabulary.tokens[0]} = 0; text -> ids -> text is the same: {vocabulary.decode(ids) == text}",
    )
    windows = Windows(encoded.ids, sequence_length=100, batch_size=64, seed=1)
    batch = next(windows.epoch(0))
    inputs, targets = batch[:, :-1], batch[:, 1:]
    shifted = bool(np.array_equal(inputs[:, 1:], targets[:, :-1]))
    row("A3", f"{windows.windows:,} windows of 100 + 1; the target is the input one further: {shifted}")
    row("A4", f"shuffled batches of {inputs.shape}, {windows.steps} in an epoch, the remainder left out")


def show_training(text: Path, run: Path, units: int, epochs: int) -> None:
    """A5 to A7 and A11: the preset is the tutorial's network and recipe."""
    _, said = charedge("train", text, "--output", run, "--preset", "tutorial", "--units", units, "--epochs", epochs)
    row("A5", re.findall(r"distinct; (.*?);", said)[0] + ", logits [batch, time, vocabulary]")
    row("A6", re.findall(r"untrained loss .*", said)[0])
    with (run / "history.csv").open() as file:
        history = list(csv.DictReader(file))
    losses = " ".join(f"{float(epoch['train_nats_per_character']):.2f}" for epoch in history)
    seconds = sorted(float(epoch["seconds"]) for epoch in history)[len(history) // 2]
    row("A7", f"Adam, {len(history)} epochs, each with a checkpoint: {len(list((run / 'checkpoints').iterdir()))} are kept")
    row("A11", f"a custom loop, {seconds:.0f} s an epoch; losses {losses}")


def show_generation(model: Path) -> None:
    """A8 and A9: one text, and five in about the same time; [UNK] is never drawn, the state is carried."""
    from charedge import load

    generator = load(model)
    options = {"length": 1000, "temperature": 1.0, "seed": 1}
    start = time.perf_counter()
    text = generator.generate("ROMEO:", **options)
    single = time.perf_counter() - start
    row("A8", f"1,000 characters in {single:.3f} s, beginning {'ROMEO:' + text[:60]!r}")
    start = time.perf_counter()
    texts = generator.generate_batch(["ROMEO:"] * 5, **options)
    batch = time.perf_counter() - start
    row("A9", f"{len(texts)} texts of 1,000 in {batch:.3f} s, {batch / single:.1f} times the time of one; {len(set(texts))} differ")


def show_saved_model(run: Path, folder: Path) -> None:
    """A10: the one-step model for TensorFlow, exported and loaded."""
    charedge("convert", run, "--format", "saved-model", "--output", folder)
    import tensorflow as tf

    one_step = tf.saved_model.load(str(folder))
    text, states, written = tf.constant(["ROMEO:"]), one_step.zero_states(1), "ROMEO:"
    for _ in range(100):
        text, states = one_step.generate_one_step(text, states, 1.0)
        written += text.numpy()[0].decode()
    row("A10", f"exported, loaded, 100 characters: {written!r}")


def show_variations(text: Path, output: Path, model: Path, units: int) -> None:
    """A12: the tutorial's suggestions; more epochs are `train --resume --epochs N`."""
    for temperature in (0.5, 1.5):
        arguments = ("--prompt", "JULIET:", "--length", 60, "--temperature", temperature, "--seed", 1)
        written, _ = charedge("generate", model, *arguments)
        row("A12", f"temperature {temperature}, another start: {written!r}")
    run = output / "two-layers"
    written, _ = charedge("train", text, "--output", run, "--preset", "tutorial", "--units", units, "--layers", 2, "--epochs", 1)
    network, _, loss, *_ = written.splitlines()
    row("A12", f"another layer: {network.split(': ', 1)[1]}, {loss}")


if __name__ == "__main__":
    run_program(main)
