"""tools/train_models.py: recipe and temperature are chosen on an inner split, and the last tenth is read once for each seed."""

import json
import runpy

import pytest
from charedge.runtime.model_file import read_model_file
from conftest import REPOSITORY, config_of

import charedge as package

NAME = "shakespeare-tiny"
pytestmark = pytest.mark.slow
CHANGES = ("--set", "units=24", "--set", "embedding_dim=8", "--set", "epochs=1", "--set", "batch_size=16")


@pytest.fixture(scope="module")
def tool(fork_server):
    """`main` of the program, whose commands are forks of a process that has imported TensorFlow; and what was run."""
    program, ran = runpy.run_path(str(REPOSITORY / "tools" / "train_models.py")), []

    def command(*arguments):
        result = fork_server.run(arguments)
        ran.append(arguments)
        assert result.returncode == 0, result.stderr
        return result.stdout

    main = program["main"]
    main.__globals__["command"] = command
    return main, ran


@pytest.fixture(scope="module")
def made(tool, corpus, tmp_path_factory):
    """The folder of both phases, with two seeds."""
    main, _ = tool
    folder = tmp_path_factory.mktemp("models") / "build"
    options = (NAME, "--corpus", str(corpus), "--build", str(folder), *CHANGES)
    main([*options, "--only", "choose"])
    main([*options, "--seeds", "1", "2"])
    return folder, options


def result_of(folder, name):
    return json.loads((folder / "figures" / f"{name}.json").read_text())


def test_the_temperature_is_chosen_on_the_5_percent_after_the_85_that_were_trained_on(made, corpus):
    folder, _ = made
    text = corpus.read_text(encoding="utf-8")
    (run,) = folder.glob(f"models/{NAME}/choose/*/run")
    held_out = (run / "held_out.txt").read_text(encoding="utf-8")
    assert text[: len(text) * 9 // 10].endswith(held_out)
    assert len(held_out) == pytest.approx(len(text) * 0.05, abs=2)
    assert config_of(run)["corpus"]["characters"] == len(text) * 9 // 10
    (candidate,) = result_of(folder, f"{NAME}-choose")["candidates"]
    fit = read_model_file(run.parent / f"{NAME}.tflite").manifest.logit_temperature.fit
    assert candidate["cross_validated_nats_per_character"] == fit.cross_validated_nats_per_character
    assert candidate["characters"] == len(held_out)


def test_the_final_trainings_keep_the_last_epoch_at_the_frozen_temperature(made):
    folder, _ = made
    figures, runs = result_of(folder, NAME), sorted(folder.glob(f"models/{NAME}/final/*/seed-*/run"))
    assert [config_of(run)["seed"] for run in runs] == [1, 2]
    assert {config_of(run)["keep"] for run in runs} == {"last"}
    (chosen,) = [c for c in result_of(folder, f"{NAME}-choose")["candidates"] if c["recipe"] == figures["recipe"]]
    assert figures["logit_temperature"] == chosen["logit_temperature"]
    for run in runs:
        temperature = read_model_file(run.parent / f"{NAME}.tflite").manifest.logit_temperature
        assert temperature is not None
        assert (temperature.value, temperature.fit) == (chosen["logit_temperature"], None)


def test_the_figures_are_the_files_losses_over_the_last_tenth(made, corpus):
    folder, _ = made
    figures, text = result_of(folder, NAME), corpus.read_text(encoding="utf-8")
    last = text[len(text) * 9 // 10 :]
    files = sorted(folder.glob(f"models/{NAME}/final/*/seed-*/{NAME}.tflite"))
    losses = [package.load(file).score(last).nats_per_character for file in files]
    assert [seed["carried"] for seed in figures["seeds"]] == pytest.approx(losses, abs=1e-9)
    assert figures["mean"]["carried"] == pytest.approx(sum(losses) / 2, abs=1e-9)
    assert figures["spread"]["carried"] == pytest.approx(abs(losses[0] - losses[1]), abs=1e-9)
    assert figures["measured_on_characters"] == len(last)
    assert figures["quantization"] == "int8"
    assert figures["bytes"] == files[0].stat().st_size
    assert figures["mean"]["windows of 256"] == pytest.approx(figures["mean"]["carried"], rel=0.05)
    assert figures["mean"]["adapted"] < figures["mean"]["carried"]


def test_what_was_made_is_not_made_again(made, tool, capsys):
    folder, options = made
    main, ran = tool
    before, count = result_of(folder, NAME), len(ran)
    main([*options, "--seeds", "1", "2"])
    assert (result_of(folder, NAME), len(ran)) == (before, count)
    assert f"mean {before['mean']['carried']:.4f}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (("--set", "units=many"), "`units` many must be a whole number"),
        (("--set", "dropout"), "--set dropout must be"),
        (("--set", "units=0"), "`units` 0 must be"),
        (("--set", "colour=3"), "--set colour=3 must be"),
        (("--only", "final", "--set", "units=25"), "has no temperature yet"),
        (("--set", "seed=2"), "--set seed is the protocol's"),
    ],
)
def test_what_cannot_be_trained_is_a_sentence(made, tool, changes, sentence):
    with pytest.raises(SystemExit) as caught:
        tool[0]([*made[1], *changes])
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--logit-temperature", "9"), "--logit-temperature must be from 0.25 to 4"),
        (("--only", "choose", "--seeds", "1"), "leave out --only choose"),
        (("--only", "choose", "--install"), "leave out --only choose"),
        (("--install", "--seeds", "2"), "--install takes the file of seed 1"),
        (("--install", "--set", "units=25"), "leave out --set"),
    ],
)
def test_options_that_do_not_go_together_are_refused_before_a_training(tool, capsys, options, sentence):
    with pytest.raises(SystemExit):
        tool[0]([NAME, *options])
    assert sentence in capsys.readouterr().err


def test_another_text_under_the_same_name_is_refused(made, tool, tmp_path):
    other = tmp_path / "other.txt"
    other.write_text("another text\n" * 4000, encoding="utf-8")
    with pytest.raises(SystemExit) as caught:
        tool[0]([*made[1], "--corpus", str(other)])
    assert "another sha256" in str(caught.value)


def test_a_given_temperature_takes_the_place_of_choose(made, tool, corpus):
    folder, _ = made
    main, _ = tool
    options = (NAME, "--corpus", str(corpus), "--build", str(folder), *CHANGES, "--set", "dropout=0.2", "--seeds", "1")
    main([*options, "--logit-temperature", "1.25"])
    assert not list(folder.glob("models/*/choose/*dropout=0.2*"))
    (file,) = folder.glob("models/*/final/*dropout=0.2*/seed-1/*.tflite")
    assert read_model_file(file).manifest.logit_temperature.value == 1.25
    assert result_of(folder, NAME)["logit_temperature"] == 1.25
    with pytest.raises(SystemExit):
        main([*options, "--logit-temperature", "1.25", "--only", "choose"])


def test_the_program_has_help():
    with pytest.raises(SystemExit) as caught:
        runpy.run_path(str(REPOSITORY / "tools" / "train_models.py"))["main"](["--help"])
    assert caught.value.code == 0
