"""What the options of `charedge train` do, and presets and warm starts."""

import csv
import itertools
import json
import math
import shutil

import numpy as np
import pytest
import reference
from charedge.runtime.vocabulary import Vocabulary
from configs import make_config
from conftest import REPOSITORY, TINY, checkpoint, config_of, kept_weights


def history(run):
    with (run / "history.csv").open() as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


@pytest.mark.parametrize(
    "options",
    [
        ("--embedding-dropout", "0.3"),
        ("--dropout", "0.3"),
        ("--output-dropout", "0.3"),
        ("--weight-drop", "0.3"),
        ("--weight-decay", "0.5"),
        ("--clip-norm", "0.001"),
        ("--batching", "shuffled"),
        ("--learning-rate-decay", "none"),
        ("--warmup", "0"),
        ("--average", "0.9"),
        ("--precision", "mixed_float16"),
    ],
    ids=lambda options: options[0],
)
def test_every_option_changes_the_training_and_is_recorded(train, options):
    plain, other = train().path, train(*options).path
    name = options[0].removeprefix("--").replace("-", "_")
    assert str(config_of(other)[name]) == options[1]
    assert config_of(plain)[name] != config_of(other)[name]
    key = "validation_nats_per_character" if name == "average" else "train_nats_per_character"
    before, after = history(plain)[-1][key], history(other)[-1][key]
    assert before != after
    assert math.isfinite(after)
    assert after < 3.6  # it learns


def test_the_learning_rate_rises_and_falls_along_a_cosine(train):
    run = train("--warmup", "10").path
    steps = 2 * ((36_000 - 1 - 50) // (16 * 50))
    warmup = min(10, steps // 10)

    def rate(step):
        return 0.01 * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))

    found = [row["learning_rate"] for row in history(run)]
    assert found == pytest.approx([rate(steps // 2), rate(steps)], abs=1e-5)


def test_the_gradients_of_all_weights_together_are_clipped(process, tmp_path):
    """After one step Adam's first moments are a tenth of the gradients, its second a thousandth of their squares."""
    text = tmp_path / "text.txt"
    text.write_text("abcd" * 20 + "dcba" * 20)
    shape = ("--layers", "1", "--units", "8", "--dropout", "0", "--weight-drop", "0")
    options = (*shape, "--epochs", "1", "--sequence-length", "140", "--precision", "float32", "--validation-split", "0.05")
    norms = []
    for clip in ("0", "0.001"):
        result = process("train", text, "--output", tmp_path / clip, *options, "--clip-norm", clip)
        assert result.returncode == 0, result.stderr
        values = [value for key, value in checkpoint(tmp_path / clip).items() if key.isdecimal()]
        pairs = [
            (m, v) for m, v in itertools.pairwise(values) if m.shape == v.shape and m.ndim and np.allclose(v, 0.1 * m**2, rtol=1e-3)
        ]
        moments = [m for m, v in pairs if v.any()]
        assert len(moments) == 6
        norms.append(10 * math.sqrt(sum((m.astype(np.float64) ** 2).sum() for m in moments)))
    assert norms[0] > 0.01
    assert norms[1] == pytest.approx(0.001, rel=1e-3)


def test_patience_ends_a_training_that_gets_no_better(process, corpus, tmp_path):
    result = process(
        "train",
        corpus,
        "--output",
        tmp_path / "run",
        *TINY,
        "--epochs",
        "40",
        "--learning-rate",
        "0.2",
        "--patience",
        "2",
        "--clip-norm",
        "0",
    )
    assert result.returncode == 0, result.stderr
    losses = [row["validation_nats_per_character"] for row in history(tmp_path / "run")]
    assert len(losses) < 40
    assert len(losses) == int(np.argmin(losses)) + 1 + 2


def test_the_last_weights_are_kept_on_request_though_others_were_better(process, charedge, tmp_path):
    """The more the network learns of the alphabet, the worse it predicts the held-out text, which is the alphabet backwards."""
    run, text = tmp_path / "run", tmp_path / "text.txt"
    text.write_text("abcdefgh" * 900 + "hgfedcba" * 100, encoding="utf-8")
    result = process("train", text, "--output", run, *TINY, "--epochs", "3", "--keep", "last")
    assert (result.returncode, "weights of epoch 3 of 3, the last one" in result.stdout) == (0, True), result.stderr
    losses = [row["validation_nats_per_character"] for row in history(run)]
    assert losses[-1] > min(losses)
    assert f"held-out {losses[-1]:.2f}: " in result.stderr
    kept = kept_weights(run)
    arrays = list(checkpoint(run).values())
    assert all(any(np.array_equal(weight, last) for last in arrays) for weight in kept)
    (run / "model.keras").unlink()
    assert process("train", "--resume", "--output", run).returncode == 0
    for expected, found in zip(kept, kept_weights(run), strict=True):
        np.testing.assert_array_equal(found, expected)
    assert process("convert", run, "--output", tmp_path / "m.tflite", "--quantization", "float32").returncode == 0
    training = json.loads(charedge("info", tmp_path / "m.tflite", "--json").stdout)["training"]
    assert training["validation_nats_per_character"] == losses[-1]


def test_the_average_of_the_weights_is_what_is_kept(train, charedge):
    """model.keras holds the averages: the checkpoint has them beside the raw weights."""
    run = train("--average", "0.9").path
    kept = kept_weights(run)
    arrays = [value for key, value in checkpoint(run).items() if key.isdecimal()]
    raw, same = arrays[: len(kept)], 0
    for weight, first in zip(kept, raw, strict=True):
        assert not np.array_equal(weight, first)
        same += any(np.array_equal(weight, other) for other in arrays)
    assert same == len(kept)


def test_the_tutorial_preset_is_the_tutorial(train):
    config = config_of(train("--preset", "tutorial", "--units", "48", "--epochs", "2").path)
    wanted = {"cell": "gru", "layers": 1, "embedding_dim": 16, "batching": "shuffled", "learning_rate_decay": "none", "warmup": 0}
    assert {name: config[name] for name in wanted} == wanted
    tutorial = make_config("tutorial")
    names = ("units", "embedding_dim", "batch_size", "sequence_length", "epochs", "learning_rate", "clip_norm", "dropout")
    assert [getattr(tutorial, name) for name in names] == [1024, 256, 64, 100, 20, 0.001, 0.0, 0.0]


def test_the_charrnn_preset_has_their_characters_and_split(process, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("En un lugar de la Mancha, año de 1605, “de cuyo nombre” no quiero acordarme.\n" * 40, encoding="utf-8")
    options = ("--units", "8", "--embedding-dim", "4", "--epochs", "1", "--batch-size", "2")
    vocabulary = REPOSITORY / "examples" / "reproductions" / "charrnn-vocabulary.txt"
    result = process("train", text, "--preset", "charrnn", "--vocabulary", vocabulary, "--output", tmp_path / "run", *options)
    assert result.returncode == 0, result.stderr
    run = tmp_path / "run"
    config = config_of(run)
    assert (config["cell"], config["layers"], config["dropout"], config["output_dropout"]) == ("lstm", 2, 0.2, 0.0)
    assert (run / "vocabulary.txt").read_bytes() == vocabulary.read_bytes()
    assert vocabulary.read_text(encoding="utf-8").count("\n") == 1 + 114
    kept = text.read_text(encoding="utf-8").replace("“", "").replace("”", "")
    assert config["corpus"]["skipped"] == 80
    assert (run / "held_out.txt").read_text(encoding="utf-8") == kept[int(len(kept) * 0.8) :]


def test_a_warm_start_knows_what_the_first_run_knew(train, process, charedge, corpus, tmp_path):
    """On a text with new characters: old ones keep their rows, so that the first loss is far below chance."""
    text, run = tmp_path / "text.txt", tmp_path / "run"
    text.write_text(corpus.read_text() + "漢字かな" * 30, encoding="utf-8")
    options = (
        "--epochs",
        "1",
        "--batch-size",
        "16",
        "--sequence-length",
        "50",
        "--learning-rate",
        "0.0001",
        "--precision",
        "float32",
    )
    result = process("train", text, "--init-from", train().path, "--output", run, *options)
    assert result.returncode == 0, result.stderr
    assert "untrained" not in result.stderr
    tokens = (run / "vocabulary.txt").read_text(encoding="utf-8").splitlines()
    assert {"漢", "字", "か", "な"} <= set(tokens)
    assert set((train().path / "vocabulary.txt").read_text(encoding="utf-8").splitlines()) < set(tokens)
    assert history(run)[0]["train_nats_per_character"] < history(train().path)[0]["train_nats_per_character"] - 0.5
    assert config_of(run)["units"] == 48
    result = charedge("train", text, "--init-from", train().path, "--output", tmp_path / "other", "--units", "64")
    assert (result.status, "--units 64" in result.stderr) == (2, True)


def test_rare_characters_are_unknown_ones(process, corpus, charedge, tmp_path):
    text, run = tmp_path / "text.txt", tmp_path / "run"
    text.write_text("漢" + corpus.read_text()[:20_000] + "字" + corpus.read_text()[:3000], encoding="utf-8")
    result = process("train", text, "--output", run, *TINY, "--epochs", "1", "--min-count", "5")
    assert result.returncode == 0, result.stderr
    config = config_of(run)
    assert (config["unknown"], config["min_count"]) == ("unk", 5)
    assert "漢" not in (run / "vocabulary.txt").read_text(encoding="utf-8")
    assert process("convert", run, "--output", tmp_path / "m.tflite").returncode == 0
    manifest = json.loads(charedge("info", tmp_path / "m.tflite", "--json").stdout)
    assert manifest["unknown"] == "unk"
    assert process("train", "--resume", "--output", run, "--epochs", "2").returncode == 0


@pytest.fixture
def half_known(corpus, tmp_path):
    """A text, and a vocabulary that lists a little less than half of it."""
    text = tmp_path / "half.txt"
    text.write_text(corpus.read_text()[:5_000].replace("x", "y") + "x" * 40 + "\u00e9" * 6_000 + "\u00e8" * 30, encoding="utf-8")
    vocabulary = tmp_path / "known.txt"
    vocabulary.write_bytes(Vocabulary.of(set(text.read_text(encoding="utf-8")) - set("\u00e9\u00e8x")).to_bytes())
    return text, vocabulary


def test_a_vocabulary_that_leaves_out_most_of_a_text_is_refused(charedge, half_known, tmp_path):
    text, vocabulary = half_known
    result = charedge("train", text, "--vocabulary", vocabulary, "--output", tmp_path / "run", *TINY)
    assert result.status == 1
    assert f"6,070 of 11,070 characters are not in --vocabulary {vocabulary}" in result.stderr
    assert "('\u00e9' 6,000 times, 'x' 40 times, '\u00e8' 30 times)" in result.stderr
    assert "--allow-unknown" in result.stderr
    assert not (tmp_path / "run").exists()


def test_characters_outside_a_given_vocabulary_are_reported_and_counted(charedge, half_known, tmp_path):
    text, vocabulary = half_known
    run, options = tmp_path / "run", (*TINY, "--epochs", "1", "--allow-unknown")
    result = charedge("train", text, "--vocabulary", vocabulary, "--output", run, *options)
    assert result.status == 0, result.stderr
    assert "warning: 6,070 of 11,070 characters" in result.stderr
    assert "5,000 characters (6,070 others left out), " in result.stderr
    assert config_of(run)["corpus"]["skipped"] == 6_070
    shutil.copy(vocabulary, tmp_path / "same.txt")
    result = charedge("train", "--resume", "--output", run, "--vocabulary", tmp_path / "same.txt")
    assert (result.status, "5,000 characters (6,070 others left out), " in result.stderr) == (0, True), result.stderr
    (tmp_path / "same.txt").write_bytes(Vocabulary.of("abc").to_bytes())
    result = charedge("train", "--resume", "--output", run, "--vocabulary", tmp_path / "same.txt")
    assert (result.status, "is not the vocabulary" in result.stderr) == (1, True), result.stderr


def test_a_minimum_count_cannot_be_given_with_a_vocabulary(charedge, half_known, tmp_path):
    text, vocabulary = half_known
    result = charedge("train", text, "--vocabulary", vocabulary, "--min-count", "3", "--output", tmp_path / "run")
    assert (result.status, "--min-count 3 and --vocabulary" in result.stderr) == (2, True), result.stderr


def test_a_warm_start_sends_rare_characters_to_unknown(train, charedge, corpus, tmp_path):
    """Not those that the first run knows, however rare they are."""
    text, run = tmp_path / "text.txt", tmp_path / "run"
    content = corpus.read_text()[:20_000] + "\u6f22" * 9 + "\u5b57" * 4
    text.write_text(content, encoding="utf-8")
    options = ("--epochs", "1", "--batch-size", "16", "--sequence-length", "50", "--precision", "float32")
    result = charedge("train", text, "--init-from", train().path, "--output", run, "--min-count", "5", *options)
    assert result.status == 0, result.stderr
    assert "20,013 characters, " in result.stderr
    config, before = config_of(run), (train().path / "vocabulary.txt").read_text().splitlines()
    assert (config["unknown"], config["min_count"], config["corpus"]["skipped"]) == ("unk", 5, 0)
    tokens = (run / "vocabulary.txt").read_text(encoding="utf-8").splitlines()
    assert set(tokens) == {*before, "\u6f22"}
    assert (run / "held_out.txt").read_text(encoding="utf-8") == content[int(20_013 * 0.9) :]
    resumed = charedge("train", "--resume", "--output", run, "--epochs", "2")
    assert (resumed.status, "20,013 characters, " in resumed.stderr) == (0, True), resumed.stderr


def test_a_weight_is_dropped_for_a_whole_window_and_the_rest_made_up_for():
    import keras
    import tensorflow as tf
    from charedge.trainer.model import build_model
    from charedge.trainer.weight_noise import forward

    config = make_config(layers=1, units=6, embedding_dim=3, dropout=0.0, weight_drop=0.5)
    keras.config.set_dtype_policy("float32")
    model = build_model(9, config)
    inputs = {"tokens": tf.constant([[1, 2, 3, 4]]), "state": tf.ones((1, 6))}
    seeds = keras.random.SeedGenerator(3)
    found = forward(model, inputs, config, seeds)["logits"].numpy()[0]
    kernel = model.get_layer("recurrent_0").cell.recurrent_kernel
    dropped = keras.random.dropout(kernel.value, 0.5, seed=keras.random.SeedGenerator(3)).numpy()
    assert 0.2 < np.mean(dropped == 0) < 0.8
    table, (gates, _, bias), output = model.weights[0].numpy(), [w.numpy() for w in model.weights[1:4]], model.weights[4:]
    h, logits = np.ones(6), []
    for token in (1, 2, 3, 4):
        h = reference.gru_cell(table[token], h, gates, dropped, bias[0], bias[1])
        logits.append(h @ output[0].numpy() + output[1].numpy())
    np.testing.assert_allclose(found, logits, atol=1e-5)


def test_on_a_gpu_the_layers_ask_for_cudnn_and_meet_its_conditions():
    import keras
    from charedge.trainer.model import build_model

    for cell in ("gru", "lstm"):
        config = make_config(cell=cell, units=8, weight_drop=0.2)
        model = build_model(9, config, cudnn=True)
        for i in range(2):
            layer = model.get_layer(f"recurrent_{i}")
            assert layer.use_cudnn is True
            assert (layer.activation, layer.recurrent_activation) == (keras.activations.tanh, keras.activations.sigmoid)
            assert (layer.recurrent_dropout, layer.dropout, layer.unroll, layer.use_bias) == (0, 0, False, True)
            assert getattr(layer, "reset_after", True)
