"""The models that come with the package: they write at once, and are as good as the pages say."""

import os
import shutil

import pytest
from charedge.runtime.bundled import FOLDER, NAMES
from conftest import text_path

from charedge import load

SHAKESPEARE_SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
"""Of the text that `charedge train shakespeare` downloads."""
MOST_BYTES = {"shakespeare": 3_600_000, "shakespeare-tiny": 350_000}
MOST_NATS = {"shakespeare": 1.38, "shakespeare-tiny": 1.43}


def test_generate_without_a_model_writes_shakespeare(charedge):
    result = charedge("generate", "--prompt", "ROMEO:", "--length", "100", "--seed", "1")
    assert (result.status, result.stderr) == (0, "")
    assert result.stdout == "ROMEO:" + load(NAMES[0]).generate("ROMEO:", 100, seed=1)


@pytest.mark.parametrize("name", NAMES)
def test_every_command_takes_the_name_of_a_model(charedge, tmp_path, name):
    (tmp_path / "text.txt").write_text("To be, or not to be")
    assert name in charedge("info", name).stdout
    assert "verified" in charedge("verify", name).stdout
    assert "nats per character" in charedge("score", name, tmp_path / "text.txt").stdout
    assert "per character" in charedge("bench", name, "--characters", "10").stdout


def test_a_file_of_that_name_goes_first(charedge, model, tmp_path, monkeypatch):
    shutil.copy(model.path, tmp_path / NAMES[0])
    monkeypatch.chdir(tmp_path)
    arguments = ("--prompt", "Hello", "--length", "20", "--seed", "1")
    assert charedge("generate", NAMES[0], *arguments).stdout == charedge("generate", model.path, *arguments).stdout


def test_other_things_of_that_name_do_not_hide_the_bundled_model(charedge, tmp_path, monkeypatch):
    (tmp_path / NAMES[0]).mkdir()
    os.mkfifo(tmp_path / NAMES[1])
    monkeypatch.chdir(tmp_path)
    assert charedge("generate", "--prompt", "ROMEO:", "--length", "5").status == 0
    for name in NAMES:
        assert f"model        {name}:" in charedge("info", name).stdout


def test_without_a_model_a_file_of_that_name_is_not_used(charedge, tmp_path, monkeypatch):
    (tmp_path / NAMES[0]).write_bytes(b"nonsense")
    monkeypatch.chdir(tmp_path)
    assert charedge("generate", "--prompt", "ROMEO:", "--length", "5").status == 0
    assert charedge("info", NAMES[0]).status == 1


@pytest.mark.parametrize("name", [pytest.param("shakespeare", marks=pytest.mark.slow), "shakespeare-tiny"])
def test_a_model_is_small_says_where_it_comes_from_and_predicts_what_was_held_out(name):
    generator = load(name)
    assert (FOLDER / f"{name}.tflite").stat().st_size <= MOST_BYTES[name]
    manifest = generator.manifest
    assert (manifest.name, manifest.quantization, manifest.license) == (name, "int8", "Apache-2.0")
    assert "Shakespeare" in manifest.training["notes"]
    assert manifest.training["corpus"]["sha256"] == SHAKESPEARE_SHA256
    assert {"learning_rate", "dropout", "weight_drop", "seed"} <= manifest.training["recipe"].keys()
    text = text_path("shakespeare.txt").read_text(encoding="utf-8")
    score = generator.score(text[int(len(text) * 0.9) :])
    assert score.characters == 111_540
    assert score.nats_per_character <= MOST_NATS[name]
