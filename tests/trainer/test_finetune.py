"""`charedge finetune`: a finished run, trained to be rounded."""

import json
from dataclasses import replace

import numpy as np
import pytest
import reference
from conftest import TINY

INT4 = ("--quantization", "int4", "--json")


@pytest.fixture(scope="module")
def tuned(train, process, tmp_path_factory):
    run = tmp_path_factory.mktemp("tuned") / "run"
    result = process("finetune", train().path, "--output", run, "--epochs", "2", "--learning-rate", "0.002")
    assert result.returncode == 0, result.stderr
    return run, result


@pytest.fixture
def converted_to_int4(process, tmp_path):
    def call(run):
        result = process("convert", run, "--output", tmp_path / f"{run.name}.tflite", *INT4)
        assert result.returncode == 0, result.stderr
        return json.loads(result.stdout)["verified"][0]

    return call


def test_the_next_command_of_a_tuned_run_converts_to_int4(tuned):
    run, result = tuned
    assert result.stdout.splitlines()[-1] == f"next: charedge convert {run} --output run.tflite --quantization int4"


def test_a_tuned_run_loses_less_to_int4(train, tuned, converted_to_int4):
    before, after = converted_to_int4(train().path), converted_to_int4(tuned[0])
    assert after["nats_per_character"] < before["nats_per_character"]
    loss = {
        key: value["nats_per_character"] - value["reference_nats_per_character"]
        for key, value in (("before", before), ("after", after))
    }
    assert loss["after"] < max(loss["before"], 0.002)


def test_the_new_run_says_how_it_was_made(train, tuned):
    before, after = (json.loads((path / "config.json").read_text()) for path in (train().path, tuned[0]))
    changed = {key for key in after if after[key] != before[key]}
    recorded = {"quantization_aware", "initialized_from", "initialized_from_sha256", "ended"}
    assert changed == {"learning_rate", "warmup", "patience", *recorded}  # the preset of a short text has a patience
    assert (after["quantization_aware"], after["learning_rate_decay"]) == ("int4", "cosine")
    rates = [float(line.split(",")[4]) for line in (tuned[0] / "history.csv").read_text().splitlines()[1:]]
    assert rates == pytest.approx([0.001, 0.0], abs=2e-5)  # half a cosine from 0.002
    assert "untrained" not in tuned[1].stderr


@pytest.mark.parametrize(("decay", "rate"), [("cosine", 0.0001), ("none", 0.01 / 3)])
def test_the_learning_rate_follows_the_run(train, process, tmp_path, decay, rate):
    """TINY's is 0.01: a third of it where it stayed, a hundredth where it fell to zero."""
    options = () if decay == "cosine" else ("--learning-rate-decay", decay)
    result = process("finetune", train(*options).path, "--output", tmp_path / "run", "--epochs", "1")
    assert result.returncode == 0, result.stderr
    assert json.loads((tmp_path / "run" / "config.json").read_text())["learning_rate"] == pytest.approx(rate)


def test_the_rounded_kernel_is_octavs(train):
    """One step's loss is that of a model whose recurrent kernel was rounded beforehand."""
    import keras
    import tensorflow as tf
    from charedge.converter.rounding import octav_scale
    from charedge.trainer.model import load_model
    from charedge.trainer.run import Run
    from charedge.trainer.weight_noise import forward

    run = Run(train().path)
    config = replace(run.config(), quantization_aware="int4")
    model = load_model(run)
    (kernel,) = [w for w in model.get_layer("recurrent_0").weights if w.name == "recurrent_kernel"]
    inputs = {"tokens": tf.constant([[1, 5, 3, 7]]), "state": tf.zeros((1, config.units))}
    found = forward(model, inputs, config, keras.random.SeedGenerator(1))["logits"].numpy()
    weights = kernel.numpy().T
    scale = octav_scale(weights)[:, None]
    kernel.assign((np.clip(np.rint(weights / scale), -7, 7) * scale).T)
    (expected,) = np.asarray(model(inputs)["logits"])
    np.testing.assert_allclose(reference.log_softmax(found[0]), reference.log_softmax(expected), atol=2e-3)


@pytest.mark.slow
def test_a_stopped_fine_tuning_resumes(train, process, start, tmp_path, tuned):
    run = tmp_path / "run"
    with start("finetune", train().path, "--output", run, "--epochs", "2", "--learning-rate", "0.002") as tuning:
        assert any("parameters" in line for line in tuning.stderr)
        tuning.kill()
    assert process("train", "--resume", "--output", run).returncode == 0
    assert (run / "history.csv").read_text().splitlines()[-1].split(",")[1:3] == (
        tuned[0] / "history.csv"
    ).read_text().splitlines()[-1].split(",")[1:3]


def test_bad_input_is_one_sentence(train, charedge, tmp_path):
    run, fine = train().path, tmp_path / "run"
    other = tmp_path / "other.txt"
    other.write_text("another text " * 100)
    for arguments, status, match in (
        ((run, "--output", run), 2, "are the same folder"),
        ((run, "--output", run / "config.json"), 2, "one folder in the other"),
        ((run, "--output", other), 1, "is a file"),
        ((run, other, "--output", fine), 1, "not the one"),
        ((run, "--output", fine, "--quantization-aware", "int3"), 2, "int3"),
        ((run, "--output", fine, "--epochs", "0"), 2, "--epochs"),
        ((run, "--output", fine, "--learning-rate", "nan"), 2, "--learning-rate"),
        ((tmp_path, "--output", fine), 1, "not a complete run folder"),
    ):
        result = charedge("finetune", *arguments)
        assert (result.status, match in result.stderr) == (status, True), result.stderr
        assert "Traceback" not in result.stderr
        assert not fine.exists()


def test_a_text_that_was_moved_is_recorded_where_it_is_now(corpus, process, charedge, tmp_path):
    text, moved, run, tuned = (tmp_path / name for name in ("text.txt", "moved.txt", "run", "tuned"))
    text.write_text(corpus.read_text()[:4000])
    assert process("train", text, "--output", run, *TINY, "--epochs", "1").returncode == 0
    text.rename(moved)
    refused = charedge("train", "--resume", "--output", run, "--epochs", "2")
    assert refused.status == 1
    assert f"{text}, the text that {run} was trained on, is not there: give CORPUS, its place now." in refused.stderr
    assert process("finetune", run, moved, "--output", tuned, "--epochs", "1").returncode == 0
    resumed = process("train", "--resume", "--output", tuned, "--epochs", "2")
    assert resumed.returncode == 0, resumed.stderr
