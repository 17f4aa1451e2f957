import json
import os
import zipfile
from io import BytesIO

import fuzz
import pytest
from charedge.runtime.model_file import read_model_file

from charedge import CharedgeError, load

FIT = {"characters": 20_000, "cross_validated_nats_per_character": 1.5, "undivided_nats_per_character": 1.625}


def rewrite(model, change_manifest=lambda fields: None, vocabulary=None, flatbuffer=None, compression=zipfile.ZIP_STORED):
    """The model file with some of it changed, packed by the standard library."""
    data = model.path.read_bytes()
    with zipfile.ZipFile(BytesIO(data)) as archive:
        start = min(member.header_offset for member in archive.infolist())
        fields = json.loads(archive.read("charedge.json"))
        words = archive.read("vocabulary.txt")
    change_manifest(fields)
    file = BytesIO(data[:start] if flatbuffer is None else flatbuffer)
    with zipfile.ZipFile(file, "a", compression) as archive:
        archive.writestr("vocabulary.txt", words if vocabulary is None else vocabulary)
        archive.writestr("charedge.json", json.dumps(fields))
    return file.getvalue()


def refused(tmp_path, data, match):
    path = tmp_path / "damaged.tflite"
    path.write_bytes(data)
    with pytest.raises(CharedgeError, match=match) as caught:
        load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_rewritten_by_another_zip_library_is_read(model, tmp_path):
    path = tmp_path / "same.tflite"
    path.write_bytes(rewrite(model))
    assert load(path).generate("A", 30, seed=1) == load(model.path).generate("A", 30, seed=1)


@pytest.mark.parametrize("part", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_a_file_cut_short_is_refused(model, tmp_path, part):
    data = model.path.read_bytes()
    refused(tmp_path, data[: int(part * len(data))], "cut short")


def test_other_files_are_refused(tmp_path):
    refused(tmp_path, b"PNG or whatever" * 100, "is not a charedge model")
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("a.txt", "a")
    refused(tmp_path, (tmp_path / "other.zip").read_bytes(), "is not a charedge model")


def test_a_tflite_file_without_charedge_metadata_is_refused(model, tmp_path):
    refused(tmp_path, read_model_file(model.path).flatbuffer, "no readable charedge metadata")


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    with pytest.raises(CharedgeError, match="does not exist"):
        load(tmp_path / "nothing.tflite")
    with pytest.raises(CharedgeError, match="is a folder"):
        load(tmp_path)


def test_a_pipe_and_a_device_are_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/zero"):
        with pytest.raises(CharedgeError, match="not a regular file"):
            load(path)


@pytest.mark.parametrize("size", [10_000_000_000, 1_500_000_000])
def test_a_huge_file_is_refused_by_its_end(model, tmp_path, size):
    data, path = model.path.read_bytes(), tmp_path / "huge.tflite"
    with path.open("wb") as file:
        file.write(data)
        file.seek(size - len(data))
        file.write(data)

    def load_huge():
        with pytest.raises(CharedgeError, match="cut short"):
            load(path)
        return "refused"

    outcome = fuzz.isolated(load_huge)
    assert outcome.verdict == "refused"
    assert outcome.seconds < 0.5
    assert outcome.megabytes < 20


def test_a_changed_flatbuffer_is_refused(model, tmp_path):
    flatbuffer = bytearray(read_model_file(model.path).flatbuffer)
    flatbuffer[len(flatbuffer) // 2] ^= 1
    refused(tmp_path, rewrite(model, flatbuffer=bytes(flatbuffer)), "SHA-256")


def test_the_members_may_stand_in_either_order(model, tmp_path):
    contents, path = read_model_file(model.path), tmp_path / "swapped.tflite"
    file = BytesIO(contents.flatbuffer)
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("charedge.json", contents.manifest.to_json())
        archive.writestr("vocabulary.txt", contents.vocabulary.to_bytes())
    path.write_bytes(file.getvalue())
    assert read_model_file(path).manifest == contents.manifest


@pytest.mark.parametrize("extra", ["comment", "extra", "another"])
def test_a_zip_with_anything_more_in_it_is_refused(model, tmp_path, extra):
    contents = read_model_file(model.path)
    file = BytesIO(contents.flatbuffer)
    with zipfile.ZipFile(file, "a") as archive:
        manifest = zipfile.ZipInfo("charedge.json")
        manifest.extra = b"UT\5\0\3abcd" if extra == "extra" else b""
        archive.writestr("vocabulary.txt", contents.vocabulary.to_bytes())
        archive.writestr(manifest, contents.manifest.to_json())
        if extra == "another":
            archive.writestr("README", "")
        archive.comment = b"hello" if extra == "comment" else b""
    refused(tmp_path, file.getvalue(), "cut short")


def test_a_member_larger_than_any_could_be_is_refused(model, tmp_path):
    refused(tmp_path, rewrite(model, vocabulary=b"[UNK]\n" + b"a\n" * 8_000_001), "of acceptable size")
    refused(tmp_path, rewrite(model, lambda fields: fields.update(name="x" * 1_000_000)), "of acceptable size")


def test_compressed_members_are_refused(model, tmp_path):
    refused(tmp_path, rewrite(model, compression=zipfile.ZIP_DEFLATED), "stored")


def test_a_newer_format_asks_for_a_newer_charedge(model, tmp_path):
    refused(tmp_path, rewrite(model, lambda fields: fields.update(format_version=2)), "pip install -U")


@pytest.mark.parametrize(
    "wrong",
    [
        {"layers": "1"},
        {"units": True},
        {"state_size": 0},
        {"cell": "transformer"},
        {"probe": None},
        {"probe": {"token_ids": [1] * 63, "nats_per_character": 1.0, "tolerance": 1.0}},
        {"probe": {"token_ids": [10**6] * 64, "nats_per_character": 1.0, "tolerance": 1.0}},
        {"interpreters": [3]},
        {"normalization": "NFX"},
        {"name": None},
        {"name": "\ud800"},
        {"layers": 2},
        {"cell": "lstm"},
        {"state_size": 25},
        {"units": 10**400},
        {"probe": {"token_ids": [1] * 64, "nats_per_character": 10**400, "tolerance": 1.0}},
        {"probe": {"token_ids": [1] * 64, "nats_per_character": 1.0, "tolerance": 1e9}},
        {"probe": {"token_ids": [True] * 64, "nats_per_character": 1.0, "tolerance": 1.0}},
        {"start_text": ""},
        {"start_text": "A\u4e00"},
        {"quantization": "in\nt8"},
        {"interpreters": [{"name": "ai-edge-litert", "minimum_version": "9" * 5000}]},
        {"interpreters": [{"name": "ai-edge-litert", "minimum_version": "latest"}]},
        {"verified": [{}] * 17},
        {"flatbuffer_sha256": "A" * 64},
        {"training": {"loss": float("nan")}},
        {"training": json.loads("[" * 100 + "]" * 100)},
        {"training": {"deep": json.loads("[" * 15 + "]" * 15)}},
        {"logit_temperature": None},
        {"logit_temperature": 1.2},
        {"logit_temperature": {}},
        {"logit_temperature": {"value": 0, "fit": FIT}},
        {"logit_temperature": {"value": 1001}},
        {"logit_temperature": {"value": 1.2, "fit": None}},
        {"logit_temperature": {"value": 1.2, "fit": {**FIT, "characters": 1}}},
        {"logit_temperature": {"value": 1.2, "fit": {**FIT, "characters": 20_000.0}}},
        {"logit_temperature": {"value": 1.2, "fit": {**FIT, "cross_validated_nats_per_character": -1}}},
        {"logit_temperature": {"value": 1.2, "fit": {**FIT, "undivided_nats_per_character": None}}},
    ],
)
def test_a_manifest_with_wrong_values_is_refused(model, tmp_path, wrong):
    refused(tmp_path, rewrite(model, lambda fields: fields.update(wrong)), "charedge.json")


@pytest.mark.parametrize(
    "content", [b"", b"null", b"[]", b"{}", b"\xff", b"[" * 900_000, b'{"format_version": 1, "format_version": 1}']
)
def test_a_manifest_that_is_not_a_known_json_object_is_refused(model, tmp_path, content):
    contents = read_model_file(model.path)
    file = BytesIO(contents.flatbuffer)
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("vocabulary.txt", contents.vocabulary.to_bytes())
        archive.writestr("charedge.json", content)
    refused(tmp_path, file.getvalue(), r"charedge\.json")


def test_a_files_texts_cannot_look_like_other_lines(model, charedge, tmp_path):
    path = tmp_path / "forged.tflite"
    path.write_bytes(rewrite(model, lambda fields: fields.update(name="mine\nverified     0.0001 nats")))
    lines = charedge("info", path).stdout.splitlines()
    assert r"mine\nverified     0.0001 nats: GRU" in lines[0]
    assert not any(line.startswith("verified     0.0001") for line in lines)


def test_fields_of_a_later_charedge_are_left_alone(model, tmp_path):
    path = tmp_path / "later.tflite"
    path.write_bytes(rewrite(model, lambda fields: fields.update(colour="green")))
    assert read_model_file(path).manifest == read_model_file(model.path).manifest


@pytest.mark.parametrize(
    ("temperature", "shown"),
    [
        ({"value": 1.25}, ["logits divided by 1.25, which was given"]),
        (
            {"value": 1.25, "fit": FIT},
            [
                "logits divided by 1.2500, fitted on the first 20,000 held-out characters",
                "1.5000 nats per character in Keras over them, each half with the temperature fitted on the other half "
                "(1.6250 undivided)",
            ],
        ),
        (
            {"value": 1, "fit": FIT},
            [
                "logits not divided: fitted on one half of the first 20,000 held-out characters, no temperature "
                "helps on the other half"
            ],
        ),
    ],
    ids=["given", "fitted", "does not help"],
)
def test_the_temperature_of_the_logits_is_read_shown_and_written(model, charedge, tmp_path, temperature, shown):
    path = tmp_path / "divided.tflite"
    path.write_bytes(rewrite(model, lambda fields: fields.update(logit_temperature=temperature)))
    assert json.loads(charedge("info", path, "--json").stdout)["logit_temperature"] == temperature
    assert json.loads(read_model_file(path).manifest.to_json())["logit_temperature"] == temperature
    rows = [line.partition(" ")[::2] for line in charedge("info", path).stdout.splitlines()]
    assert [text.strip() for label, text in rows if label == "temperature"] == shown
    measured = read_model_file(path).manifest.verified[0]
    (verified,) = [text for label, text in rows if label == "verified" and measured.interpreter in text]
    assert (f"{measured.nats_per_character:.4f} nats" in verified) == (len(shown) == 1)
    assert f"{measured.loss:+.4f}" in verified


def test_a_vocabulary_of_another_size_is_refused(model, tmp_path):
    refused(tmp_path, rewrite(model, vocabulary=b"[UNK]\na\n"), "2 lines")


def test_a_manifest_with_wrong_shapes_is_refused(model, tmp_path):
    refused(tmp_path, rewrite(model, lambda fields: fields.update(units=25, state_size=25)), "shapes differ from")
    fields = {"vocabulary_size": len(model.vocabulary) + 1}
    longer = model.vocabulary.to_bytes() + "\u4e00\n".encode()
    refused(tmp_path, rewrite(model, lambda manifest: manifest.update(fields), vocabulary=longer), "shapes differ from")


def test_a_probe_that_comes_out_differently_is_refused(model, tmp_path):
    def lie(fields):
        fields["probe"]["nats_per_character"] += 1

    refused(tmp_path, rewrite(model, lie), "does not work with")


def test_an_interpreter_that_is_too_old_never_sees_the_file(model, tmp_path):
    def newer(fields):
        fields["interpreters"] = [{"name": name, "minimum_version": "99.0"} for name in ("ai-edge-litert", "tflite-runtime")]

    refused(tmp_path, rewrite(model, newer), r"needs ai-edge-litert 99.0 or later or tflite-runtime 99.0 .*pip install")
