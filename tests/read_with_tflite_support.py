"""Read model files with tflite-support, as a program that knows nothing of charedge would.

    python tests/read_with_tflite_support.py [--show] MODEL.tflite ...

Needs an environment of its own (`make test-metadata` makes it): Python 3.9 to 3.11, `tflite-support==0.4.4`, `numpy<2`, and the
system's libusb (on Debian `apt install libusb-1.0-0`). A file that tflite-support reads otherwise than zipfile, or than its own
graph says, ends the program with an AssertionError.
"""

# tflite-support is installed by `make test-metadata`, not with the tools.
# pyright: reportMissingImports=false

from __future__ import annotations

import argparse
import json
import zipfile
from pathlib import Path

from tensorflow_lite_support.metadata.cc.python import _pywrap_metadata_version
from tflite_support import metadata, schema_py_generated

MODEL_TEXTS = ("name", "description", "version", "author", "license")
FILES = ["vocabulary.txt", "charedge.json"]


def read_model(path: Path) -> dict:
    """The metadata of a model file, after every check of it."""
    displayer = metadata.MetadataDisplayer.with_model_file(str(path))
    model = json.loads(displayer.get_metadata_json())
    check_texts(model, MODEL_TEXTS, path)
    check_tensors(model, path)
    check_files(model, displayer, path)
    needed = _pywrap_metadata_version.GetMinimumMetadataParserVersion(displayer.get_metadata_buffer())
    assert model["min_parser_version"] == needed, f"{path}: min_parser_version is {model['min_parser_version']}, not {needed}"
    return model


def check_tensors(model: dict, path: Path) -> None:
    """Check that the tensors are described in the order of the subgraph, by the names of the signature."""
    (subgraph,) = model["subgraph_metadata"]
    inputs, outputs = subgraph["input_tensor_metadata"], subgraph["output_tensor_metadata"]
    for tensor in (subgraph, *inputs, *outputs):
        check_texts(tensor, ("name", "description"), path)
    graph = schema_py_generated.ModelT.InitFromObj(schema_py_generated.Model.GetRootAs(path.read_bytes(), 0))
    (signature,) = graph.signatureDefs
    for described, indices, named, expected in (
        (inputs, graph.subgraphs[0].inputs, signature.inputs, ["token", "state"]),
        (outputs, graph.subgraphs[0].outputs, signature.outputs, ["logits", "state"]),
    ):
        names = {tensor.tensorIndex: tensor.name.decode() for tensor in named}
        in_graph = [names[index] for index in indices]
        in_metadata = [tensor["name"] for tensor in described]
        assert in_metadata == in_graph == expected, f"{path}: {in_metadata} are described, {in_graph} are in the subgraph"


def check_files(model: dict, displayer: metadata.MetadataDisplayer, path: Path) -> None:
    """Check that the files are those that the metadata records, with the content that zipfile reads."""
    token = model["subgraph_metadata"][0]["input_tensor_metadata"][0]
    recorded = [(file["name"], file.get("type")) for file in token["associated_files"]]
    assert recorded == [("vocabulary.txt", "VOCABULARY")], f"{path}: on token are {recorded}"
    recorded = [file["name"] for file in model["associated_files"]]
    assert recorded == ["charedge.json"], f"{path}: on the model are {recorded}"
    packed = displayer.get_packed_associated_file_list()
    assert packed == FILES, f"{path}: {packed} are packed"
    with zipfile.ZipFile(path) as archive:
        for name in FILES:
            extracted = displayer.get_associated_file_buffer(name)
            assert extracted, f"{path}: {name} is empty"
            assert extracted == archive.read(name), f"{path}: {name} differs from what zipfile reads"


def check_texts(entry: dict, keys: tuple[str, ...], path: Path) -> None:
    for key in keys:
        assert entry.get(key, "").strip(), f"{path}: {entry.get('name', 'an entry')} has no {key}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=Path, metavar="MODEL.tflite")
    parser.add_argument("--show", action="store_true", help="print the metadata as JSON")
    arguments = parser.parse_args()
    for path in arguments.models:
        model = read_model(path)
        print(f"{path}: read by tflite-support, metadata for parsers from {model['min_parser_version']}")
        if arguments.show:
            print(json.dumps(model, indent=2, ensure_ascii=False))


if __name__ == "__main__":
    main()
