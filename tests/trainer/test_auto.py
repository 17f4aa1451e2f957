"""The preset `auto`: what it chooses for the length of a text, and what stays as the user gave it."""

import random

import pytest
from charedge.trainer import api
from charedge.trainer.config import OPTIONS, settings
from charedge.trainer.presets import LENGTHS
from configs import make_config
from conftest import REPOSITORY

import charedge as library


@pytest.fixture
def plan(monkeypatch, tmp_path):
    """Plan a training on a text of some length, and return its options by name and the messages; it is not carried out."""
    plans, messages = [], []

    def keep(plan, *arguments):
        plans.append(plan)
        return plan.run

    monkeypatch.setattr(api, "carry_out", keep)

    def call(characters, **arguments):
        text = tmp_path / f"{characters}.txt"
        text.write_text("".join(random.Random(0).choices("abcdef \n", k=characters)))
        library.train(text, tmp_path / "run", **arguments, progress=lambda report: messages.append(report.message))
        return {name: getattr(plans[-1].config, name) for name in OPTIONS}, [message for message in messages if message]

    return call


def differing(options, preset):
    """The options that differ from those of a named preset."""
    named = make_config(preset, precision="auto")
    return {name: value for name, value in options.items() if name != "preset" and value != getattr(named, name)}


def test_a_long_text_is_trained_as_the_preset_base(plan):
    options, messages = plan(700_000)
    assert (options["preset"], differing(options, "base")) == ("auto", {})
    assert "preset auto: 630,000 characters to train on -> base, 10 epochs, batch size 64" in messages[-1]


def test_the_choice_depends_on_the_characters_to_train_on(plan):
    """Not on those that are held out."""
    shorter, _ = plan(60_000, validation_split=0.1)
    longer, messages = plan(70_000, validation_split=0.1)
    same, _ = plan(70_000, validation_split=0.2)
    assert shorter["epochs"] > longer["epochs"]
    assert {**shorter, "validation_split": 0.2} == same
    assert "63,000 characters to train on -> small" in messages[1]


def test_short_texts_get_more_epochs_smaller_batches_and_more_noise(plan):
    short, _ = plan(20_000)
    base, _ = plan(700_000)
    assert short["epochs"] > base["epochs"]
    assert short["batch_size"] < base["batch_size"]
    assert short["units"] < base["units"]
    assert short["weight_drop"] > base["weight_drop"]


def test_given_options_come_before_the_choice(plan):
    auto, _ = plan(20_000)
    given = {"epochs": 3, "units": 7, "dropout": 0.0, "batch_size": 5}
    options, messages = plan(20_000, preset="auto", **given)
    assert options == {**auto, **given}
    assert "3 epochs, batch size 5, " in messages[-1]


def test_a_named_preset_is_the_same_for_every_length(plan):
    for preset in ("small", "base", "wide", "large", "tutorial"):
        options, messages = plan(20_000, preset=preset)
        assert (options["preset"], differing(options, preset)) == (preset, {})
    assert not [message for message in messages if "preset auto" in message]


def test_a_start_from_a_model_has_its_network_and_a_recipe_of_its_own(plan):
    cold, _ = plan(20_000)
    warm, _ = plan(20_000, init_from="shakespeare-tiny")
    assert (warm["units"], warm["layers"], warm["embedding_dim"]) == (172, 2, 128)
    assert warm["learning_rate"] < cold["learning_rate"]
    assert warm["epochs"] < cold["epochs"]
    large, _ = plan(20_000, init_from="shakespeare")
    assert large["units"] == 608


@pytest.mark.slow
def test_a_run_of_the_preset_auto_is_resumed_with_the_same_options(process, corpus, tmp_path):
    tiny = ("--units", "16", "--layers", "1", "--embedding-dim", "8", "--epochs", "1")
    result = process("train", corpus, "--output", tmp_path / "run", *tiny)
    assert result.returncode == 0, result.stderr
    assert "charedge: preset auto: 36,000 characters to train on -> small, 1 epoch, " in result.stderr
    before = library.Run(tmp_path / "run").config()
    assert before.preset == "auto"
    again = process("train", corpus, "--resume", "--preset", "auto", "--output", tmp_path / "run", "--epochs", "2")
    assert again.returncode == 0, again.stderr
    after = library.Run(tmp_path / "run").config()
    assert (after.epochs, after.batch_size, after.learning_rate) == (2, before.batch_size, before.learning_rate)


def rows(heading):
    """The cells of a table in the guide, by the first words of its heading."""
    page = (REPOSITORY / "docs" / "training.md").read_text(encoding="utf-8")
    table = page[page.index(f"| {heading}") :].split("\n\n")[0]
    return [[cell.replace("`", "").strip() for cell in row.strip("|").split("|")] for row in table.splitlines()[2:]]


def cells(length, *names, initial_units=None):
    """The cells of a row: the length, and some of the options that are chosen for it."""
    options = settings("auto", {}, min(length.characters, 10**9), initial_units)
    assert options["dropout"] == options["weight_drop"]
    shown = [length.preset if name == "preset" else f"{options[name]:g}" for name in names]
    return ["more" if length is LENGTHS[-1] else f"up to {length.characters:,}", *shown]


def test_the_guide_lists_what_is_chosen():
    shown = [cells(length, "preset", "epochs", "batch_size", "learning_rate", "dropout", "patience") for length in LENGTHS]
    assert rows("characters to train on | preset") == shown


def test_the_guide_lists_what_is_chosen_for_a_start_from_a_model():
    shown = [cells(length, "epochs", "batch_size", initial_units=160) for length in LENGTHS[:-1]]
    assert rows("characters to train on | epochs") == [*shown, ["more", "those of base", "those of base"]]
    sizes = [("up to 200", 160), ("up to 400", 304), ("more", 608)]
    found = [settings("auto", {}, 10_000, units) for _, units in sizes]
    wanted = [[name, f"{o['learning_rate']:g}", f"{o['dropout']:g}"] for (name, _), o in zip(sizes, found, strict=True)]
    assert rows("units of the model") == wanted
