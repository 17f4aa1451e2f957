"""The model file as another program reads it: with zipfile, flatbuffers and LiteRT's schema, not with charedge's own reader."""

import hashlib
import json
import zipfile
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from charedge.converter.microcontroller import installed_micro
from configs import make_config

MANIFEST_KEYS = [
    *("format_version", "name", "created_by", "created", "license", "cell", "layers", "units", "embedding_dim", "state_size"),
    *("vocabulary_size", "normalization", "unknown", "start_text", "quantization", "input_table_folded", "flatbuffer_sha256"),
    *("interpreters", "verified", "probe", "training"),
]


@pytest.fixture(params=["float32", "float16", "int8", "int8-static", "int4"])
def made(models, request):
    return models(quantization=request.param, cell="lstm", layers=2)


def read(path):
    data = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        files = {member.filename: archive.read(member) for member in members}
    start = min(member.header_offset for member in members)
    return data, data[:start], members, files


def test_the_members_are_stored_with_fixed_dates(made):
    _, _, members, files = read(made.path)
    assert list(files) == ["vocabulary.txt", "charedge.json"]
    assert all(member.compress_type == zipfile.ZIP_STORED for member in members)
    assert {member.date_time for member in members} == {(1980, 1, 1, 0, 0, 0)}


def test_the_zip_begins_where_the_flatbuffer_ends(made):
    data, flatbuffer, _, _ = read(made.path)
    assert data[len(flatbuffer) :][:4] == b"PK\x03\x04"
    assert flatbuffer[4:8] == b"TFL3"


def test_the_manifest_is_as_the_format_says(made):
    _, flatbuffer, _, files = read(made.path)
    manifest = json.loads(files["charedge.json"])
    static = manifest["quantization"] == "int8-static"
    assert [key for key in manifest if key != "microcontroller"] == MANIFEST_KEYS
    assert ("microcontroller" in manifest) == (static and installed_micro() is not None)
    assert manifest["format_version"] == 1
    assert manifest["flatbuffer_sha256"] == hashlib.sha256(flatbuffer).hexdigest()
    assert (manifest["cell"], manifest["layers"], manifest["units"], manifest["state_size"]) == ("lstm", 2, 24, 96)
    assert manifest["vocabulary_size"] == files["vocabulary.txt"].count(b"\n") == len(made.vocabulary)
    portable = manifest["quantization"] != "int4"
    names = {"ai-edge-litert", "tflite-runtime"} if portable else {"ai-edge-litert"}
    assert {entry["name"] for entry in manifest["interpreters"]} - {"tflite-micro"} == names
    assert len(manifest["probe"]["token_ids"]) == 64
    assert manifest["verified"][0]["interpreter"] == "ai-edge-litert"


def test_the_vocabulary_lists_the_tokens_in_id_order(made):
    _, _, _, files = read(made.path)
    lines = files["vocabulary.txt"].decode().split("\n")
    assert lines[:3] == ["[UNK]", r"\n", " "]
    assert lines[-1] == ""


def test_every_buffer_keeps_its_alignment(made):
    _, flatbuffer, _, _ = read(made.path)
    model = schema.Model.GetRootAs(flatbuffer, 0)
    offsets = []
    for i in range(model.BuffersLength()):
        buffer = model.Buffers(i)
        if buffer.DataLength():
            content: Any = buffer.DataAsNumpy()
            offsets.append(
                content.__array_interface__["data"][0] - np.frombuffer(flatbuffer, np.uint8).__array_interface__["data"][0]
            )
    assert len(offsets) > 5
    assert all(offset % 16 == 0 for offset in offsets)


def test_the_metadata_is_a_flatbuffer_of_its_own(made):
    _, flatbuffer, _, _ = read(made.path)
    model = schema.Model.GetRootAs(flatbuffer, 0)
    entries = {model.Metadata(i).Name(): model.Metadata(i).Buffer() for i in range(model.MetadataLength())}
    content: Any = model.Buffers(entries[b"TFLITE_METADATA"]).DataAsNumpy()
    metadata = content.tobytes()
    assert metadata[4:8] == b"M001"
    for text in (made.path.stem, "the tests", "CC0-1.0", "vocabulary.txt", "charedge.json", "token", "logits"):
        assert text.encode() in metadata


def test_the_signature_names_its_tensors(made):
    runner = Interpreter(model_path=str(made.path)).get_signature_runner("step")
    shapes = {name: (d["shape"].tolist(), d["dtype"]) for name, d in runner.get_input_details().items()}
    assert shapes == {"token": ([1], np.int32), "state": ([1, 96], np.float32)}
    shapes = {name: (d["shape"].tolist(), d["dtype"]) for name, d in runner.get_output_details().items()}
    assert shapes == {"logits": ([1, len(made.vocabulary)], np.float32), "state": ([1, 96], np.float32)}


def matmuls(flatbuffer):
    """Name, type, number of scales and operator version of the weights of every FULLY_CONNECTED."""
    model: Any = schema.ModelT.InitFromObj(schema.Model.GetRootAs(flatbuffer, 0))
    graph, codes = model.subgraphs[0], model.operatorCodes
    for operator in graph.operators:
        if codes[operator.opcodeIndex].builtinCode == schema.BuiltinOperator.FULLY_CONNECTED:
            weights = graph.tensors[operator.inputs[1]]
            scales = 0 if weights.quantization is None else len(weights.quantization.scale)
            yield weights.name.decode(), weights.type, scales, codes[operator.opcodeIndex].version


def test_int8_weights_have_one_scale_and_the_portable_version(models):
    made = models(quantization="int8", cell="lstm", layers=2)
    found = list(matmuls(read(made.path)[1]))
    assert not made.weights.folding_pays()
    assert len(found) == 2 * 2 + 1  # input and recurrent side of two layers, and the logits
    assert {entry[1:] for entry in found} == {(schema.TensorType.INT8, 1, 9)}


def test_int4_weights_have_a_scale_for_each_output_and_version_12(models):
    made = models(quantization="int4", cell="lstm", layers=2)
    found = list(matmuls(read(made.path)[1]))
    inner, outer = (schema.TensorType.INT4, 4 * 24, 12), (schema.TensorType.INT8, 1, 9)
    assert [entry[1:] for entry in found] == [outer, inner, inner, inner, outer]
    assert (found[0][0], found[-1][0]) == ("layer_0/input/input/all/weights", "logits/weights")


def test_the_sizes_are_those_of_the_bits(models):
    sizes = {
        name: models(quantization=name, units=256, embedding_dim=256).path.stat().st_size
        for name in ("float32", "float16", "int8", "int4")
    }
    assert sizes["float16"] < 0.51 * sizes["float32"]
    assert sizes["int8"] < 0.27 * sizes["float32"]
    assert sizes["int4"] < 0.68 * sizes["int8"]  # the table and the output layer are 8-bit


def test_an_int4_file_of_the_preset_wide_is_no_larger_than_an_int8_file_of_base(models):
    base, wide = (make_config(preset, precision="auto") for preset in ("base", "wide"))
    int8, int4 = (
        models(quantization=name, layers=config.layers, units=config.units, embedding_dim=config.embedding_dim).path.stat().st_size
        for name, config in (("int8", base), ("int4", wide))
    )
    assert 0.9 * int8 < int4 <= int8


def damage_version(graph):
    graph.operatorCodes[[c.version for c in graph.operatorCodes].index(9)].version = 1


def damage_scale(graph):
    next(t for t in graph.subgraphs[0].tensors if t.quantization is not None).quantization.scale = [0.0]


def damage_scales(graph):
    next(t for t in graph.subgraphs[0].tensors if t.quantization is not None).quantization.scale = [1.0, 1.0]


def damage_signature(graph):
    graph.signatureDefs[0].signatureKey = b"serving_default"


def damage_alignment(graph):
    graph.description = graph.description  # packed again, which forgets the alignment


@pytest.mark.parametrize(
    "damage", [damage_version, damage_scale, damage_scales, damage_signature, damage_alignment], ids=lambda f: f.__name__
)
def test_a_wrong_structure_is_found_before_the_file_is_run(models, damage):
    import flatbuffers
    from charedge.converter.check import StructureError, check_structure
    from charedge.converter.profiles import PROFILES

    flatbuffer = read(models(quantization="int8").path)[1]
    check_structure(flatbuffer, PROFILES["int8"])
    graph = schema.ModelT.InitFromObj(schema.Model.GetRootAs(flatbuffer, 0))
    damage(graph)
    builder = flatbuffers.Builder(0)
    builder.Finish(graph.Pack(builder), b"TFL3")
    with pytest.raises(StructureError):
        check_structure(bytes(builder.Output()), PROFILES["int8"])


def test_a_file_is_not_called_portable_if_it_is_not(models):
    from charedge.converter.check import StructureError, check_structure
    from charedge.converter.profiles import PROFILES

    with pytest.raises(StructureError, match="interpreters"):
        check_structure(read(models(quantization="int4").path)[1], PROFILES["int8"])
