import numpy as np
import pytest
import reference
from ai_edge_litert.interpreter import Interpreter
from charedge.converter.profiles import PROFILES
from charedge.converter.quantization import quantize
from charedge.converter.step import Weights, build_step


def run_graph(graph, ids, rows=1):
    """Logits [n, rows, V] after each step, by LiteRT's own signature runner."""
    interpreter = Interpreter(model_content=graph.to_flatbuffer("step", "", {}))
    size = graph.inputs["state"].shape[1]
    runner = interpreter.get_signature_runner("step")
    state, logits = np.zeros((rows, size), np.float32), []
    for token in ids:
        out = runner(token=np.full(rows, token, np.int32), state=state)
        state = out["state"]
        logits.append(out["logits"])
    return np.array(logits)


@pytest.mark.parametrize("fold", [True, False])
@pytest.mark.parametrize(("cell", "layers"), [("gru", 1), ("gru", 3), ("lstm", 1), ("lstm", 2)])
def test_the_float_graph_is_numpys_cell_arithmetic(cell, layers, fold):
    weights = Weights.random(cell, layers)
    ids = np.random.default_rng(2).integers(0, weights.vocabulary_size, 200)
    expected, _ = reference.run_model(weights, ids)
    np.testing.assert_allclose(run_graph(build_step(weights, fold), ids)[:, 0], expected, atol=1e-4)


@pytest.mark.parametrize(("cell", "layers"), [("gru", 1), ("lstm", 2)])
def test_int8_weights_stay_close_to_float(cell, layers):
    weights = Weights.random(cell, layers, units=64)
    ids = np.random.default_rng(2).integers(0, weights.vocabulary_size, 200)
    expected, _ = reference.run_model(weights, ids)
    found = run_graph(quantize(build_step(weights), PROFILES["int8"]), ids)[:, 0]
    assert np.abs(found - expected).mean() < 0.02 * expected.std()


def test_folding_is_done_where_it_makes_the_file_smaller():
    assert Weights.random(vocabulary_size=60, embedding_dim=16, units=24).folding_pays() is False
    assert Weights.random(vocabulary_size=60, embedding_dim=64, units=24).folding_pays() is True


def test_each_row_of_a_batch_gets_the_logits_that_it_gets_alone():
    weights = Weights.random("lstm", 2)
    graph = quantize(build_step(weights), PROFILES["int8"])
    ids = [3, 1, 4, 1, 5]
    many, one = run_graph(graph, ids, rows=7), run_graph(graph, ids)
    np.testing.assert_array_equal(many, np.repeat(one, 7, axis=1))
