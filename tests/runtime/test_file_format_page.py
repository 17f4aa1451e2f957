"""The page that specifies the model file: the reader that it shows reads what our own reads."""

import re
from dataclasses import asdict
from types import SimpleNamespace

import pytest
import reference
from charedge.runtime.model_file import read_model_file
from conftest import REPOSITORY
from corruptions import CORRUPTIONS, damage

from charedge import CharedgeError, load

PAGE = (REPOSITORY / "docs" / "file-format.md").read_text(encoding="utf-8")
TRICKY = "\n\r\t\\ \u00a0\u2028\u0301\x00é漢😀\U000e0001abc"


@pytest.fixture(scope="module")
def reader():
    """The names that the page's code defines."""
    (block,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names = {}
    exec(block, names)
    return SimpleNamespace(**names)


@pytest.mark.parametrize(
    "options",
    [
        {"quantization": "int8"},
        {"cell": "lstm", "layers": 2},
        {"characters": TRICKY, "normalization": "none", "start_text": "a"},
    ],
    ids=["gru", "lstm", "tricky"],
)
def test_the_pages_reader_reads_what_ours_reads(models, reader, options):
    path = models(**options).path
    manifest, characters, flatbuffer = reader.read_model(path)
    contents = read_model_file(path)
    assert manifest == contents.manifest.to_dict()
    assert tuple(characters) == contents.vocabulary.tokens
    assert flatbuffer == contents.flatbuffer


@pytest.mark.parametrize("unknown", ["skip", "unk"])
@pytest.mark.parametrize("normalization", ["NFC", "NFD", "NFKC", "NFKD", "none"])
@pytest.mark.filterwarnings("ignore::charedge.UnknownCharacters")
def test_the_pages_rules_for_text_and_loss_are_ours(models, reader, unknown, normalization):
    text = "\ufeffA na\u0131ve fi\ufb01re\r\nma\u00f1ana\rA\u030a\ufeff \u4e00B"
    made = models(characters="\nABaefimnr\u0303\u00f1\u00c5", unknown=unknown, normalization=normalization)
    manifest, characters, _ = reader.read_model(made.path)
    ids = reader.encode(text, manifest, characters)
    score = load(made.path).score(text)
    assert score.characters == len(ids)
    assert score.nats_per_character == pytest.approx(reference.nats_per_character(made.weights, ids), abs=1e-4)


def test_the_probe_is_as_the_page_says(model, reader):
    probe = reader.read_model(model.path)[0]["probe"]
    assert len(probe["token_ids"]) == 64
    nats = reference.nats_per_character(model.weights, probe["token_ids"])
    assert nats == pytest.approx(probe["nats_per_character"], abs=0.02)  # the weights are rounded in the file


def test_the_pages_reader_refuses_no_file_that_ours_takes(model, reader, tmp_path):
    data, path = model.path.read_bytes(), tmp_path / "damaged.tflite"
    taken = 0
    for case in range(2 * len(CORRUPTIONS)):
        name, damaged = damage(data, 11, case)
        path.write_bytes(damaged)
        try:
            contents = read_model_file(path)
        except CharedgeError:
            continue
        _, characters, flatbuffer = reader.read_model(path)
        assert (tuple(characters), flatbuffer) == (contents.vocabulary.tokens, contents.flatbuffer), name
        taken += 1
    assert taken > 5


@pytest.mark.parametrize("part", [0.0, 0.5, 0.999])
def test_the_pages_reader_refuses_a_file_cut_short(model, reader, tmp_path, part):
    data, path = model.path.read_bytes(), tmp_path / "short.tflite"
    path.write_bytes(data[: int(part * len(data))])
    with pytest.raises(ValueError, match="not a model file"):
        reader.read_model(path)


def test_the_page_names_every_key_of_the_manifest(models):
    manifest = asdict(read_model_file(models(quantization="int8-static").path).manifest)
    nested = [*manifest["probe"], *manifest["interpreters"][0], *manifest["verified"][0], "arena_bytes", "operators"]
    for key in [*manifest, *nested]:
        assert f"`{key}`" in PAGE, key
