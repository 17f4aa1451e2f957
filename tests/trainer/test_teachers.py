"""`charedge train --teacher`: learning from what finished runs predict."""

import json
import shutil
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import reference
from conftest import TINY, checkpoint, config_of


@pytest.fixture(scope="module")
def teachers(train):
    return train().path, train("--cell", "lstm", "--units", "32").path


@pytest.fixture(scope="module")
def student(teachers, train):
    return train("--seed", "5", "--teacher", teachers[0], "--teacher", teachers[1], "--teacher-weight", "0.9")


def probabilities(run, ids):
    """What a run's Keras model makes of ids, by plain Keras."""
    model: Any = keras.saving.load_model(run / "model.keras", compile=False)
    logits = model({"tokens": ids[None], "state": np.zeros((1, model.input["state"].shape[1]), np.float32)})["logits"][0]
    return np.exp(reference.log_softmax(logits))


def tokens(run):
    lines = (run / "vocabulary.txt").read_text(encoding="utf-8").split("\n")[:-1]
    return [{"\\n": "\n", "\\\\": "\\"}.get(line, line) for line in lines]


def vocabulary_ids(run, text):
    ids = {token: i for i, token in enumerate(tokens(run))}
    return np.array([ids[character] for character in text], np.int32)


def held_out_ids(run):
    return vocabulary_ids(run, (run / "held_out.txt").read_text(encoding="utf-8")[:600])


def test_the_teachers_predict_their_mean_with_their_states_carried(teachers):
    import tensorflow as tf
    from charedge.trainer.model import LAYERS
    from charedge.trainer.run import Run
    from charedge.trainer.teachers import Teachers

    runs = [Run(path) for path in teachers]
    ensemble = Teachers(runs, runs[0].vocabulary(), "float32", "auto", LAYERS)
    assert ensemble.size == 48 + 2 * 32
    ids = tf.constant(held_out_ids(teachers[0])[:120])
    first, state = ensemble.predict(ids[None, :50], tf.zeros((1, ensemble.size)))
    second, _ = ensemble.predict(ids[None, 50:], state)
    expected = np.mean([probabilities(path, ids.numpy()) for path in teachers], axis=0)
    np.testing.assert_allclose(np.concatenate([first[0], second[0]]), expected, atol=1e-5)


def test_a_student_predicts_more_as_its_teachers_do(teachers, student, train):
    ids = held_out_ids(teachers[0])
    taught = np.mean([probabilities(path, ids) for path in teachers], axis=0)

    def divergence(run):
        return (taught * np.log(taught / probabilities(run, ids))).sum(axis=1).mean()

    alone = train("--seed", "5").path
    assert divergence(student.path) < 0.9 * divergence(alone)


def test_the_loss_is_the_text_s_and_the_teachers_by_their_weight(teachers, process, tmp_path):
    """After one step Adam's first moment of the output's bias is a tenth of its gradient: what is predicted less what is wanted."""
    text, run = tmp_path / "text.txt", tmp_path / "run"
    text.write_text("zq" * 167 + "z")  # 301 characters to train on, which is one window
    step = ("--epochs", "1", "--sequence-length", "300", "--validation-split", "0.1", "--clip-norm", "0")
    taught_by = ("--teacher", teachers[0], "--teacher", teachers[1], "--teacher-weight", "0.25")
    options = (*TINY, *step, "--vocabulary", teachers[0] / "vocabulary.txt", *taught_by)
    result = process("train", text, "--output", run, *options)
    assert result.returncode == 0, result.stderr
    ids = vocabulary_ids(run, text.read_text()[:301])
    counted = np.bincount(ids[1:], minlength=len(tokens(run))) / 300
    taught = np.mean([probabilities(path, ids[:-1]) for path in teachers], axis=0).mean(axis=0)
    assert np.abs(taught - counted).max() > 0.1
    wanted = 0.75 * counted + 0.25 * taught
    biases = [value for key, value in checkpoint(run).items() if key.isdecimal() and value.shape == counted.shape]
    _, moment, squares = biases
    np.testing.assert_allclose(squares, 0.1 * moment**2, rtol=1e-3)
    np.testing.assert_allclose(10 * moment, 1 / len(counted) - wanted, atol=3e-3)


@pytest.mark.slow
def test_a_training_with_teachers_that_was_killed_ends_with_the_same_weights(teachers, student, corpus, start, process, tmp_path):
    run = tmp_path / "run"
    options = ("--seed", "5", "--teacher", teachers[0], "--teacher", teachers[1], "--teacher-weight", "0.9")
    with start("train", corpus, "--output", run, *TINY, *options, "--checkpoint-minutes", "0.00001") as training:
        assert any("batch 3" in line or "epoch 1" in line for line in training.stderr)
        training.kill()
    assert list((run / "checkpoints").iterdir())
    result = process("train", "--resume", "--output", run, "--teacher", teachers[0], "--teacher", teachers[1])
    assert result.returncode == 0, result.stderr
    for key, value in checkpoint(student.path).items():
        np.testing.assert_array_equal(checkpoint(run)[key], value, err_msg=key)


def test_the_teachers_are_recorded_in_the_run_and_in_the_file(teachers, student, process, charedge, tmp_path):
    config = config_of(student.path)
    assert (config["teachers"], config["teacher_weight"]) == ([str(path) for path in teachers], 0.9)
    assert process("convert", student.path, "--output", tmp_path / "m.tflite").returncode == 0
    recipe = json.loads(charedge("info", tmp_path / "m.tflite", "--json").stdout)["training"]["recipe"]
    assert (recipe["teachers"], recipe["teacher_weight"]) == ([path.name for path in teachers], 0.9)


@pytest.mark.parametrize(
    ("options", "status", "match"),
    [
        (("--teacher", "missing"), 1, "missing is not a run folder"),
        (("--teacher-weight", "0.5"), 2, "needs --teacher"),
        (("--teacher", "RUN", "--teacher-weight", "0"), 2, "--teacher-weight 0.0 must be above 0"),
        (("--teacher", "RUN", "--min-count", "30"), 1, "predicts other characters"),
    ],
)
def test_bad_teachers_are_one_sentence_and_leave_nothing(teachers, charedge, corpus, tmp_path, options, status, match):
    options = [teachers[0] if option == "RUN" else option for option in options]
    result = charedge("train", corpus, "--output", tmp_path / "run", *TINY, *options)
    assert (result.status, match in result.stderr) == (status, True), result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "run" / "config.json").exists()


@pytest.mark.parametrize("option", ["--teacher", "--init-from"])
@pytest.mark.parametrize("name", ["run", "./run", "../{folder}/run", "link", "link/run", "run/part", "."])
def test_a_run_is_not_read_where_the_new_one_is_written(charedge, corpus, tmp_path, monkeypatch, option, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "run" if name == "link" else tmp_path)
    other = name.format(folder=tmp_path.name)
    for output, read in ((tmp_path / "run", other), (other, tmp_path / "run")):
        result = charedge("train", corpus, "--output", output, option, read, "--overwrite", *TINY)
        assert (result.status, f" and {option} {Path(read)} are " in result.stderr) == (2, True), result.stderr


def test_runs_side_by_side_are_not_mistaken_for_nested_ones(charedge, corpus, tmp_path):
    result = charedge("train", corpus, "--output", tmp_path / "run", "--teacher", tmp_path / "run2", *TINY)
    assert (result.status, "run2 is not a run folder" in result.stderr) == (1, True), result.stderr


def test_a_student_that_became_its_own_teacher_is_not_resumed(student, charedge, tmp_path):
    run = shutil.copytree(student.path, tmp_path / "run")
    (run / "config.json").write_text(json.dumps({**config_of(run), "teachers": [str(run)], "teachers_sha256": []}))
    result = charedge("train", "--resume", "--output", run)
    assert (result.status, "are the same folder" in result.stderr) == (2, True), result.stderr


def test_a_teacher_with_other_weights_is_not_resumed_with(teachers, student, charedge, tmp_path):
    run = shutil.copytree(student.path, tmp_path / "run")
    config = config_of(run)
    hashes = config.pop("teachers_sha256")
    assert len(set(hashes)) == 2
    changed = {**config, "teachers": [str(teachers[1]), str(teachers[1])]}  # as if the first had been trained again
    (run / "config.json").write_text(json.dumps({**changed, "teachers_sha256": hashes}))
    result = charedge("train", "--resume", "--output", run)
    assert (result.status, f"--teacher {teachers[1]} has other weights" in result.stderr) == (1, True), result.stderr
    (run / "config.json").write_text(json.dumps(config))  # as runs were before hashes were recorded
    result = charedge("train", "--resume", "--output", run)
    assert result.status == 0, result.stderr
    assert config_of(run)["teachers_sha256"] == hashes
