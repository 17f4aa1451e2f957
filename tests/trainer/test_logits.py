"""A text read with its state carried, against the formulas in numpy; and the device that reads it."""

import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from charedge.trainer import evaluation, logits
from charedge.trainer.evaluation import evaluate_by
from charedge.trainer.fast_recurrence import FAST_LAYERS
from charedge.trainer.logits import read_text
from charedge.trainer.model import LAYERS, load_model
from charedge.trainer.run import Run
from keras_models import UNITS, VOCABULARY_SIZE, build, weights_of
from reference import nats_per_character, run_model

CELLS = pytest.mark.parametrize("cell", ["gru", "lstm"])


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Streams, chunks and parts that are small enough for a short text to have several."""
    monkeypatch.setattr(logits, "STREAMS", 5)
    monkeypatch.setattr(logits, "STREAM_LENGTH", 12)
    monkeypatch.setattr(logits, "CHUNK", 7)


@pytest.fixture
def reads(monkeypatch):
    """The shapes of all the tokens that were read."""
    shapes, compile_reader = [], logits.compile_reader

    def compiled(*arguments, **options):
        read = compile_reader(*arguments, **options)
        return lambda tokens, state: (shapes.append(tuple(tokens.shape)), read(tokens, state))[1]

    monkeypatch.setattr(logits, "compile_reader", compiled)
    return shapes


def text(length):
    return np.random.default_rng(2).integers(1, VOCABULARY_SIZE, length).astype(np.int32)


def assert_read(model, cell, depth, ids):
    """The logits of every position and the loss are those of one pass from the first character to the last."""
    weights = weights_of(model, cell, depth)
    expected, _ = run_model(weights, ids[:-1])
    np.testing.assert_allclose(np.concatenate(list(read_text(model, ids))), expected, atol=1e-4)
    result = evaluate_by("carried", model, ids)
    assert result.nats_per_character == pytest.approx(nats_per_character(weights, ids), abs=1e-5)
    assert result.predictions == len(ids) - 1


@CELLS
@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("source", [LAYERS, FAST_LAYERS], ids=["keras", "fast"])
def test_a_text_is_read_as_one_stream(cell, depth, source):
    model = build(cell, depth, layers=source)
    for length in (2, 9, 200):
        assert_read(model, cell, depth, text(length))


@CELLS
@pytest.mark.parametrize(("bias", "least", "most"), [(9.0, 2.5, 5), (-9.0, 1, 1.7)], ids=["keeps", "forgets"])
def test_only_a_network_that_keeps_its_state_is_read_more_than_once(cell, bias, least, most, reads):
    """The bias is that of the update gate in a GRU, of the forget gate in an LSTM."""
    model, ids = build(cell, 1), text(401)
    biases = model.get_layer("recurrent_0").weights[-1]
    values = np.asarray(biases.value.numpy())
    values[..., slice(0, UNITS) if cell == "gru" else slice(UNITS, 2 * UNITS)] = bias / values.ndim
    biases.assign(values)
    assert_read(model, cell, 1, ids)
    reads.clear()
    list(read_text(model, ids))
    assert least <= sum(rows * length for rows, length in reads) / 400 <= most


@CELLS
def test_a_large_vocabulary_is_read_in_parts(cell, monkeypatch, reads):
    monkeypatch.setattr(logits, "MOST_LOGITS", 30 * VOCABULARY_SIZE)
    model, ids = build(cell), text(100)
    assert max(len(part) for part in read_text(model, ids)) == 30
    assert_read(model, cell, 2, ids)
    assert max(rows * length for rows, length in reads) <= 30


def test_the_loss_of_nan_logits_is_nan(reads):
    model = build("gru")
    model.set_weights([np.full(weight.shape, np.nan) for weight in model.get_weights()])
    assert np.isnan(evaluate_by("carried", model, text(200)).nats_per_character)


def test_progress_is_reported_from_the_beginning_to_the_end():
    places = []
    list(read_text(build("gru"), text(62), lambda report: places.append((report.done, report.total))))
    assert places[0] == (0, 61)
    assert places[-1] == (61, 61)
    assert places == sorted(places)


def nodes(graph):
    """All of a graph and of the functions that it calls, loops and branches too."""
    definition = graph.as_graph_def()
    return [*definition.node, *(node for function in definition.library.function for node in function.node_def)]


@pytest.fixture
def gpu(monkeypatch):
    """Keras and charedge see a GPU that is not there."""
    module = sys.modules["keras.src.backend.tensorflow.rnn"]
    monkeypatch.setattr(module, "_is_gpu_available", lambda: True)
    listed = tf.config.list_logical_devices
    monkeypatch.setattr(
        tf.config, "list_logical_devices", lambda kind=None: [SimpleNamespace(name="GPU:0")] if kind == "GPU" else listed(kind)
    )


@pytest.fixture
def graphs(monkeypatch):
    """The graphs of all the readers that are compiled."""
    found, compile_reader = [], logits.compile_reader

    def compiled(*arguments, **options):
        read: Any = compile_reader(*arguments, **options)
        found.append(read.get_concrete_function().graph)
        return read

    for module in (logits, evaluation):
        monkeypatch.setattr(module, "compile_reader", compiled)
    return found


def test_with_a_gpu_there_keras_would_take_it(gpu):
    from charedge.trainer.logits import compile_reader

    read: Any = compile_reader(build("gru"))
    operations = {node.op for node in nodes(read.get_concrete_function().graph)}
    assert any("CudnnRNN" in operation for operation in operations)


@CELLS
def test_the_reference_is_read_on_the_cpu_where_there_is_a_gpu(cell, gpu, graphs, train, tmp_path):
    from charedge import convert

    run = Run(train("--cell", cell).path)
    model = load_model(run, FAST_LAYERS)
    assert all("CPU:0" in weight.value.device for weight in model.weights)
    ids = run.vocabulary().encode(run.held_out())[:300]
    for protocol in ("carried", "windows", "last-character"):
        evaluate_by(protocol, model, ids)
    convert(run, tmp_path / "m.tflite", quantization="float32", fit_temperature=True)
    list(read_text(load_model(run), ids))
    assert len(graphs) == 6
    for graph in graphs:
        assert not [node.op for node in nodes(graph) if "Cudnn" in node.op or node.op == "If"]
        assert {node.device for node in nodes(graph)} <= {"", "/device:CPU:0"}
        products = [node.device for node in nodes(graph) if node.op in ("MatMul", "BatchMatMulV2")]
        assert products
        assert set(products) == {"/device:CPU:0"}
