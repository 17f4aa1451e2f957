"""What `charedge train` says about its losses when it is done."""

import math

import pytest
from charedge.trainer.run import Epoch, Run
from charedge.trainer.summary import assess, trigram_loss


def epochs(*losses):
    """A history of (training, validation) losses."""
    return [Epoch(i + 1, train, validation, 1e4, 0.001, 3.0) for i, (train, validation) in enumerate(losses)]


@pytest.mark.parametrize(
    ("losses", "finding"),
    [
        (((2.2, 2.2), (2.05, 2.1)), "unfinished"),
        (((2.4, 2.2),), "unfinished"),  # the training loss is measured with noise
        (((1.9, 1.9), (1.8, 1.8), (1.7, 1.82)), "good"),  # the losses are close, and the best epoch is over
        (((2.0, 2.0), (1.27, 1.44)), "good"),
        (((2.0, 2.0), (1.27, 1.44), (1.2, 1.46)), "good"),
        (((2.0, 2.0), (1.27, 1.44), (1.0, 1.48)), "memorised"),
        (((2.0, 2.0), (0.62, 1.95)), "memorised"),
    ],
)
def test_the_losses_tell_memorised_from_unfinished(losses, finding):
    assert assess(epochs(*losses), 2.0).finding == finding


def test_a_model_has_words_if_it_is_better_than_trigrams():
    assert assess(epochs((1.0, 1.8)), 1.9).has_words
    assert not assess(epochs((1.0, 1.9)), 1.9).has_words
    assert not assess(epochs((1.0, math.nan)), 1.9).has_words


def test_the_trigram_loss_is_witten_bells_interpolation():
    """By hand: three symbols (a, b, and one for all others) have 1/3 each before anything is read."""
    first = 1 / 3  # a, after nothing
    second = (0 + 1 * 1 / 3) / (1 + 1)  # b, of which order 0 has seen none in one character; longer contexts are new
    order_0 = (1 + 2 * 1 / 3) / (2 + 2)  # a, seen once in two characters, of two kinds; its context b is new
    assert trigram_loss("", "ab") == pytest.approx(-(math.log(first) + math.log(second)) / 2)
    assert trigram_loss("ab", "a") == pytest.approx(-math.log(order_0))
    order_0 = (1 + 2 * 1 / 3) / (3 + 2)  # b, seen once in three characters
    order_1 = (1 + 1 * order_0) / (1 + 1)  # after a there was one b
    assert trigram_loss("aba", "b") == pytest.approx(-math.log(order_1))
    order_1 = (2 + 1 * (2 + 2 * 1 / 3) / (5 + 2)) / (2 + 1)
    order_2 = (1 + 1 * order_1) / (1 + 1)  # after ba there was one b
    assert trigram_loss("ababa", "b") == pytest.approx(-math.log(order_2))


def test_a_text_of_random_characters_is_as_hard_as_it_is():
    import random

    text = "".join(random.Random(1).choices("abcdefgh", k=40_000))
    assert trigram_loss(text[:30_000], text[30_000:]) == pytest.approx(math.log(8), abs=0.03)


def test_a_training_that_is_too_short_says_so_before_the_next_command(train, process, corpus):
    made = train("--epochs", "1", "--learning-rate", "0.001")
    assert (
        "charedge: this model will generate text with hardly any words: on the held-out text it predicts no better" in made.stderr
    )
    assert "the network can still learn from this text: train longer (--resume --epochs 2)" in made.stderr
    assert made.stdout.splitlines()[-1].startswith("next: charedge convert ")
    best = min(epoch.validation_nats_per_character for epoch in Run(made.path).history())
    assert f"held-out {best:.2f}: the network" in made.stderr


@pytest.mark.slow
def test_a_training_that_patience_ended_says_so(process, corpus, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text(corpus.read_text()[:4_000])
    options = ("--units", "64", "--layers", "1", "--embedding-dim", "8", "--sequence-length", "50", "--batch-size", "4")
    more = ("--dropout", "0", "--weight-drop", "0", "--learning-rate", "0.01", "--epochs", "60", "--patience", "8")
    result = process("train", text, "--output", tmp_path / "run", *options, *more, "--precision", "float32")
    assert result.returncode == 0, result.stderr
    history = Run(tmp_path / "run").history()
    assert len(history) < 60
    assert (
        f"stopped after {len(history)} of 60 epochs, because the validation loss did not fall any more (--patience)"
        in result.stderr
    )
    assert "the network memorised the text: more text helps most" in result.stderr
