"""`charedge train --init-from` a model file: every quantisation and cell, other vocabularies, and files that are refused."""

from types import SimpleNamespace

import numpy as np
import pytest
import reference
from charedge.runtime.bundled import FOLDER
from charedge.runtime.manifest import MANIFEST_FILE
from charedge.runtime.model_file import read_model_file
from charedge.trainer.model_weights import factorise, read_weights
from conftest import TINY, config_of

import charedge as library

NO_LEARNING = (
    *("--epochs", "1", "--learning-rate", "1e-9", "--batch-size", "16", "--sequence-length", "50", "--precision", "float32"),
    *("--dropout", "0", "--weight-drop", "0"),
)
ROUNDING = {"float32": 1e-5, "float16": 1e-3, "int8": 0.02, "int8-static": 0.02, "int4": 0.25}
"""How far the loss of a random model may move, in nats, by the rounding of its weights."""
FOLDED, SEPARATE = 56, 16
"""Embedding dimensions with which a table of 61 rows is folded, and not."""


def in_keras_layout(file):
    """The weights of a model file for `reference.run_model`."""
    cell, weights = file.manifest.cell, read_weights(file).arrays
    layers = []
    for i in range(file.manifest.layers):
        kernel, recurrent, bias = weights[1 + 3 * i : 4 + 3 * i]
        biases = tuple(bias) if cell == "gru" else (bias, None)
        layers.append(SimpleNamespace(kernel=kernel, recurrent_kernel=recurrent, input_bias=biases[0], recurrent_bias=biases[1]))
    return SimpleNamespace(cell=cell, embedding=weights[0], layers=layers, output_kernel=weights[-2], output_bias=weights[-1])


@pytest.mark.parametrize(("cell", "embedding_dim"), [("gru", FOLDED), ("lstm", SEPARATE)])
@pytest.mark.parametrize("quantization", ROUNDING)
def test_the_weights_of_every_kind_of_file_are_those_that_were_converted(models, quantization, embedding_dim, cell):
    made = models(quantization=quantization, cell=cell, layers=2, embedding_dim=embedding_dim)
    file = read_model_file(made.path)
    assert file.manifest.input_table_folded == (embedding_dim == FOLDED)
    found = reference.nats_per_character(in_keras_layout(file), made.held_out)
    assert found == pytest.approx(reference.nats_per_character(made.weights, made.held_out), abs=ROUNDING[quantization])


def test_a_table_is_factorised_exactly_where_the_embedding_has_room_for_its_rank():
    random = np.random.default_rng(1)
    table = random.normal(size=(9, 30)) @ np.diag(random.uniform(1, 9, 30)) + random.normal(size=30)
    for dimensions in (8, 9, 20):  # a table of 9 rows without their mean has a rank of 8
        embedding, kernel, bias, left_out = factorise(table, np.full(9, True), dimensions)
        assert (embedding.shape, kernel.shape, bias.shape, left_out) == ((9, dimensions), (dimensions, 30), (30,), 0)
        np.testing.assert_allclose(embedding @ kernel + bias, table, atol=1e-9)
    assert np.abs(kernel).sum(axis=1).all()
    np.testing.assert_allclose(bias, table.mean(axis=0))


def test_a_table_of_higher_rank_is_approximated_and_the_rest_is_reported():
    random = np.random.default_rng(2)
    left, right = (np.linalg.qr(random.normal(size=(n, 4)))[0] for n in (12, 30))
    left -= left.mean(axis=0)
    left = np.linalg.qr(left)[0]  # orthonormal columns whose means are 0
    table = left @ np.diag([8.0, 4.0, 2.0, 1.0]) @ right.T
    embedding, kernel, _, left_out = factorise(table, np.full(12, True), 2)
    assert np.linalg.norm(embedding @ kernel - (left[:, :2] @ np.diag([8.0, 4.0]) @ right[:, :2].T)) < 1e-9
    assert left_out == pytest.approx(np.sqrt((2**2 + 1) / (8**2 + 4**2 + 2**2 + 1)))


def test_a_token_that_the_training_never_saw_does_not_move_the_bias():
    table = np.array([[100.0, 100.0], [1.0, 2.0], [3.0, 4.0]])
    _, _, bias, _ = factorise(table, np.array([False, True, True]), 3)
    np.testing.assert_allclose(bias, [2.0, 3.0])


@pytest.mark.parametrize(
    ("quantization", "options"), [("int8", ()), pytest.param("int4", ("--cell", "lstm"), marks=pytest.mark.slow)]
)
def test_a_training_from_a_model_file_begins_where_the_run_ended(converted, corpus, process, tmp_path, quantization, options):
    made = converted(quantization, *options)
    result = process("train", corpus, "--init-from", made.path, "--output", tmp_path / "run", *NO_LEARNING)
    assert result.returncode == 0, result.stderr
    assert "untrained" not in result.stderr
    before = min(epoch.validation_nats_per_character for epoch in library.Run(made.run).history())
    (after,) = library.Run(tmp_path / "run").history()
    assert after.validation_nats_per_character == pytest.approx(before, abs=0.02)
    config = config_of(tmp_path / "run")
    recorded = (config["initialized_from"], config["initialized_from_sha256"])
    assert recorded == (str(made.path), read_model_file(made.path).manifest.flatbuffer_sha256)
    assert {name: config[name] for name in ("cell", "layers", "units", "embedding_dim")} == {
        name: config_of(made.run)[name] for name in ("cell", "layers", "units", "embedding_dim")
    }


def test_a_bundled_model_begins_with_what_it_knows_and_learns_new_characters(process, tmp_path, monkeypatch):
    """The tiny model's own text, with some characters that it does not know; the run is then continued."""
    monkeypatch.chdir(tmp_path)
    written = library.load("shakespeare-tiny").generate("", length=3_000, temperature=0.7, seed=1)
    (tmp_path / "text.txt").write_text(written + "ñß漢" * 20 + written[-600:], encoding="utf-8")
    options = ("--init-from", "shakespeare-tiny", "--output", tmp_path / "run")
    result = process("train", tmp_path / "text.txt", *options, *NO_LEARNING)
    assert result.returncode == 0, result.stderr
    (epoch,) = library.Run(tmp_path / "run").history()
    assert epoch.validation_nats_per_character < 1.2
    vocabulary = set((tmp_path / "run" / "vocabulary.txt").read_text(encoding="utf-8").splitlines())
    assert vocabulary == {*read_model_file(FOLDER / "shakespeare-tiny.tflite").vocabulary.to_bytes().decode().splitlines(), *"ñß漢"}
    resumed = process("train", "--resume", *options, "--epochs", "2")
    assert resumed.returncode == 0, resumed.stderr
    other = process("train", "--resume", "--init-from", "shakespeare", "--output", tmp_path / "run", "--epochs", "3")
    assert (other.returncode, "--init-from shakespeare (was shakespeare-tiny)" in other.stderr) == (1, True), other.stderr


def test_the_same_seed_gives_the_same_new_characters(model, charedge, corpus, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text(corpus.read_text()[:3_000] + "ñß漢" * 20, encoding="utf-8")
    losses = []
    for name in ("one", "two"):
        result = charedge("train", text, "--init-from", model.path, "--output", tmp_path / name, *NO_LEARNING)
        assert result.status == 0, result.stderr
        losses += [epoch.validation_nats_per_character for epoch in library.Run(tmp_path / name).history()]
    assert losses[0] == losses[1]


def test_a_training_keeps_to_the_models_unicode_form(models, charedge, corpus, tmp_path):
    model = models(normalization="NFD")
    result = charedge("train", corpus, "--init-from", model.path, "--output", tmp_path / "run", *NO_LEARNING)
    assert result.status == 0, result.stderr
    assert library.Run(tmp_path / "run").config().normalization == "NFD"


def test_what_an_approximated_table_leaves_out_is_said(models, corpus, charedge, tmp_path):
    path = models(quantization="int8", embedding_dim=40, units=24).path  # rounded, the table has a rank of 60
    text = tmp_path / "text.txt"
    text.write_text(corpus.read_text()[:3_000])
    result = charedge("train", text, "--init-from", path, "--output", tmp_path / "run", *NO_LEARNING)
    assert result.status == 0, result.stderr
    assert f"the table of {path} is approximated by embeddings of 40 dimensions, which leaves out 0.2" in result.stderr


def damaged(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    return bytes(data)


def flatbuffer(path):
    return read_model_file(path).flatbuffer


def other_names(path):
    """A model file whose graph calls its constants something else, as one of another program or version may."""
    import hashlib
    from dataclasses import replace

    file = read_model_file(path)
    data = file.flatbuffer.replace(b"logits/weights", b"outlet/weights")
    manifest = replace(file.manifest, flatbuffer_sha256=hashlib.sha256(data).hexdigest())
    return replace(file, flatbuffer=data, manifest=manifest).to_bytes()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (damaged, "is damaged (its SHA-256 does not match its manifest): copy it again"),
        (flatbuffer, "has no readable charedge metadata, or was cut short"),
        (other_names, "cannot be read (it has no constant 'logits/weights'): use the version of charedge that wrote it"),
        (lambda path: b"All the world's a stage.\n" * 20, "is not a charedge model"),
    ],
    ids=["damaged", "only-a-flatbuffer", "other-names", "a-text"],
)
def test_a_file_that_is_no_model_of_ours_is_one_sentence_and_leaves_nothing(model, charedge, corpus, tmp_path, content, sentence):
    path = tmp_path / "other.tflite"
    path.write_bytes(content(model.path))
    result = charedge("train", corpus, "--init-from", path, "--output", tmp_path / "run", "--precision", "float32")
    assert result.status == 1
    assert [line for line in result.stderr.splitlines() if sentence in line and str(path) in line], result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "run" / "config.json").exists()


def test_a_name_that_is_neither_a_file_nor_a_bundled_model_is_refused(charedge, corpus, tmp_path):
    result = charedge("train", corpus, "--init-from", "shakespear", "--output", tmp_path / "run")
    assert result.status == 1
    assert (
        "--init-from shakespear is not a run folder, a model file or a bundled model (shakespeare, shakespeare-tiny)"
        in result.stderr
    )


OTHER = [("--units", "25"), ("--cell", "lstm"), ("--embedding-dim", "3"), ("--layers", "2"), ("--normalization", "NFKC")]


@pytest.mark.parametrize(("option", "value"), OTHER)
def test_a_network_of_another_shape_than_the_models_is_refused(model, charedge, corpus, tmp_path, option, value):
    result = charedge("train", corpus, "--init-from", model.path, "--output", tmp_path / "run", option, value)
    assert (result.status, f"{option} {value} is not what {model.path} has (" in result.stderr) == (2, True), result.stderr


def test_a_json_log_does_not_overwrite_the_model_file(model, charedge, corpus, tmp_path):
    before = model.path.read_bytes()
    options = ("--output", tmp_path / "run", "--json-log", model.path, *TINY)
    result = charedge("train", corpus, "--init-from", model.path, *options)
    assert (result.status, "which is read: choose another file" in result.stderr) == (2, True), result.stderr
    assert model.path.read_bytes() == before
    assert MANIFEST_FILE.encode() in before
