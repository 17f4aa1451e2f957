"""Standard TFLite Metadata in the flatbuffer.

It is a separate flatbuffer (identifier `M001`) in the buffer named TFLITE_METADATA; the files that it names are members of the
ZIP after the model (runtime/model_file.py). The slots below are those of metadata_schema.fbs, which tflite-support, Netron and
Android read: https://ai.google.dev/edge/litert/conversion/tensorflow/metadata
"""

from __future__ import annotations

from collections.abc import Sequence

import flatbuffers

from ..runtime.manifest import MANIFEST_FILE
from ..runtime.model_file import SIGNATURE, VOCABULARY_FILE
from .description import Description
from .graph import Graph

METADATA_BUFFER = "TFLITE_METADATA"
METADATA_IDENTIFIER = b"M001"
MIN_PARSER_VERSION = "1.0.1"  # the first that knows the file type VOCABULARY
UNKNOWN_FILE, VOCABULARY_TYPE = 0, 5  # of enum AssociatedFileType
FEATURE_PROPERTIES = 1  # of union ContentProperties


TENSORS = {
    "token": "The id of one character in vocabulary.txt.",
    "state": "The recurrent state before the character; zeros before the first one.",
    "logits": "The unnormalised log-probability of each token of vocabulary.txt to come next.",
    "next_state": "The recurrent state after the character, for the next step.",
}


def build_flatbuffer(graph: Graph, description: Description, summary: str) -> bytes:
    """Build the bytes [0, Z) of a model file: the graph with its signature and its metadata.

    Args:
        graph: the quantized step graph.
        description: the description of the model.
        summary: one sentence about the network, for people.

    Returns:
        A flatbuffer.
    """
    summary = f"{summary} {description.notes}".strip()
    return graph.to_flatbuffer(SIGNATURE, summary, {METADATA_BUFFER: _model_metadata(graph, description, summary)})


def _model_metadata(graph: Graph, description: Description, summary: str) -> bytes:
    builder = flatbuffers.Builder(4096)
    vocabulary = _file(builder, VOCABULARY_FILE, "The tokens in id order, escaped, one a line.", VOCABULARY_TYPE)
    manifest = _file(builder, MANIFEST_FILE, "What charedge needs to know to run the model.", UNKNOWN_FILE)
    inputs = [_tensor(builder, name, TENSORS[name], [vocabulary] if name == "token" else []) for name in graph.inputs]
    names = {"logits": "logits", "state": "next_state"}
    outputs = [_tensor(builder, name, TENSORS[names[name]], []) for name in graph.outputs]
    subgraph = _table(
        builder,
        builder.CreateString(SIGNATURE),
        builder.CreateString("One step of a recurrent language model."),
        _vector(builder, inputs),
        _vector(builder, outputs),
    )
    model = _table(
        builder,
        builder.CreateString(description.name),
        builder.CreateString(summary),
        builder.CreateString(description.created[:10]),
        _vector(builder, [subgraph]),
        builder.CreateString(description.author),
        builder.CreateString(description.license),
        _vector(builder, [manifest]),
        builder.CreateString(MIN_PARSER_VERSION),
    )
    builder.Finish(model, METADATA_IDENTIFIER)
    return bytes(builder.Output())


def _file(builder: flatbuffers.Builder, name: str, description: str, kind: int) -> int:
    strings = builder.CreateString(name), builder.CreateString(description)
    builder.StartObject(5)
    builder.PrependUOffsetTRelativeSlot(0, strings[0], 0)
    builder.PrependUOffsetTRelativeSlot(1, strings[1], 0)
    builder.PrependInt8Slot(2, kind, 0)
    return builder.EndObject()


def _tensor(builder: flatbuffers.Builder, name: str, description: str, files: Sequence[int]) -> int:
    properties = _table(builder)
    builder.StartObject(3)  # Content: the union's type, its value, a range
    builder.PrependUint8Slot(0, FEATURE_PROPERTIES, 0)
    builder.PrependUOffsetTRelativeSlot(1, properties, 0)
    content = builder.EndObject()
    named = builder.CreateString(name), builder.CreateString(description)
    return _table(builder, *named, None, content, None, None, _vector(builder, files) if files else None)


def _table(builder: flatbuffers.Builder, *offsets: int | None) -> int:
    """Write a table whose first slots hold these offsets; None leaves a slot empty."""
    builder.StartObject(len(offsets))
    for slot, offset in enumerate(offsets):
        if offset is not None:
            builder.PrependUOffsetTRelativeSlot(slot, offset, 0)
    return builder.EndObject()


def _vector(builder: flatbuffers.Builder, offsets: Sequence[int]) -> int:
    builder.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    return builder.EndVector()
