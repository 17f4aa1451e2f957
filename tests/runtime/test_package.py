import json
import zipfile
from io import BytesIO

import pytest
from charedge.runtime import CharedgeError, Generator
from charedge.runtime.package import read_package


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
        Generator.load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_rewritten_by_another_zip_library_is_read(model, tmp_path):
    path = tmp_path / "same.tflite"
    path.write_bytes(rewrite(model))
    assert Generator.load(path).generate("A", 30, seed=1) == Generator.load(model.path).generate("A", 30, seed=1)


@pytest.mark.parametrize("part", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_a_file_cut_short_is_refused(model, tmp_path, part):
    data = model.path.read_bytes()
    refused(tmp_path, data[: int(part * len(data))], "cut short")


def test_other_files_are_refused(tmp_path):
    refused(tmp_path, b"PNG or whatever" * 100, "is not a charedge model")
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("a.txt", "a")
    refused(tmp_path, (tmp_path / "other.zip").read_bytes(), "is not a charedge model")


def test_a_tflite_file_without_our_metadata_is_refused(model, tmp_path):
    refused(tmp_path, read_package(model.path).flatbuffer, "no readable charedge metadata")


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    with pytest.raises(CharedgeError, match="does not exist"):
        Generator.load(tmp_path / "nothing.tflite")
    with pytest.raises(CharedgeError, match="is a folder"):
        Generator.load(tmp_path)


def test_a_changed_flatbuffer_is_refused(model, tmp_path):
    flatbuffer = bytearray(read_package(model.path).flatbuffer)
    flatbuffer[len(flatbuffer) // 2] ^= 1
    refused(tmp_path, rewrite(model, flatbuffer=bytes(flatbuffer)), "SHA-256")


def test_compressed_members_are_refused(model, tmp_path):
    refused(tmp_path, rewrite(model, compression=zipfile.ZIP_DEFLATED), "stored")


def test_a_newer_format_asks_for_a_newer_charedge(model, tmp_path):
    refused(tmp_path, rewrite(model, lambda fields: fields.update(format_version=2)), "pip install --upgrade")


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
    ],
)
def test_a_manifest_with_wrong_types_is_refused(model, tmp_path, wrong):
    refused(tmp_path, rewrite(model, lambda fields: fields.update(wrong)), "charedge.json")


def test_a_vocabulary_of_another_size_is_refused(model, tmp_path):
    refused(tmp_path, rewrite(model, vocabulary=b"[UNK]\na\n"), "2 lines")


def test_a_manifest_that_lies_about_shapes_is_refused(model, tmp_path):
    refused(tmp_path, rewrite(model, lambda fields: fields.update(state_size=25)), "other shapes")


def test_a_probe_that_comes_out_differently_is_refused(model, tmp_path):
    def lie(fields):
        fields["probe"]["nats_per_character"] += 1

    refused(tmp_path, rewrite(model, lie), "does not work with")


def test_an_interpreter_that_is_too_old_never_sees_the_file(model, tmp_path):
    def newer(fields):
        fields["interpreters"] = [{"name": "ai-edge-litert", "minimum_version": "99.0"}]

    refused(tmp_path, rewrite(model, newer), r"needs ai-edge-litert 99.0 or later.*pip install")
