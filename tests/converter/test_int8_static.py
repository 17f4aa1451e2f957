"""The profile int8-static against numpy's integer arithmetic, on LiteRT and on TensorFlow Lite Micro."""

import struct

import numpy as np
import pytest
import reference
from ai_edge_litert import schema_py_generated as schema
from charedge.converter.activation_scales import BINS, activation_scales, best_scale
from charedge.converter.microcontroller import MicroStep, installed_micro, operators
from charedge.converter.profiles import PROFILES
from charedge.converter.quantization import Statistics, quantize
from charedge.converter.step import GATES, Weights, build_step
from charedge.runtime.interpreter import Step, installed_interpreters
from charedge.runtime.model_file import read_model_file
from model_files import build_model_file

from charedge import load

NETWORKS = {
    "gru": {"units": 32, "embedding_dim": 64},
    "deep gru, table not folded": {"layers": 3, "units": 24, "embedding_dim": 8},
    "lstm": {"cell": "lstm", "units": 32, "embedding_dim": 64},
    "deep lstm, table not folded": {"cell": "lstm", "layers": 2, "units": 24, "embedding_dim": 8},
}


def on_litert(flatbuffer, weights):
    return Step(flatbuffer, weights.vocabulary_size, weights.state_size, next(installed_interpreters()))


def on_micro(flatbuffer, weights):
    interpreter = installed_micro()
    if interpreter is None:
        pytest.skip("tflite-micro is not installed: it has wheels for Python 3.11 on x86-64 Linux alone")
    return MicroStep(flatbuffer, weights.vocabulary_size, weights.state_size, interpreter)


def build(network):
    weights = Weights.random(vocabulary_size=30, seed=5, **NETWORKS[network])
    ids = np.random.default_rng(6).integers(1, 30, 4000).astype(np.int32)
    graph = build_step(weights)
    static = quantize(graph, PROFILES["int8-static"], Statistics(scales=activation_scales(graph, ids)))
    return weights, ids, static.to_flatbuffer("step", "", {})


class Constants:
    """The constants and scales of a flatbuffer by the names of its tensors, read by LiteRT's own schema."""

    def __init__(self, flatbuffer):
        model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(flatbuffer, 0))
        self.tensors = {tensor.name.decode(): tensor for tensor in model.subgraphs[0].tensors}
        self.buffers = model.buffers

    def __getitem__(self, name):
        tensor = self.tensors[name]
        dtype = {schema.TensorType.INT8: np.int8, schema.TensorType.FLOAT32: np.float32}[tensor.type]
        return np.frombuffer(bytes(self.buffers[tensor.buffer].data), dtype).reshape(tensor.shape)

    def scale(self, name):
        (scale,) = self.tensors[name].quantization.scale
        return float(scale)

    def __contains__(self, name):
        return name in self.tensors


def integer_product(constants, name, source, x):
    """What a FULLY_CONNECTED with its QUANTIZE and DEQUANTIZE computes, from TFLite's specification of 8-bit quantisation."""
    scale_in, scale_out = constants.scale(f"{source}/int8"), constants.scale(f"{name}/int8")
    levels = np.clip(np.rint(x / scale_in), -128, 127)
    product = constants[f"{name}/weights"].astype(np.float64) @ levels
    unscaled = np.clip(np.rint(product * scale_in / scale_out), -128, 127) * scale_out
    scaled = unscaled * constants[f"{name}/weights/scale"]
    return scaled + constants[f"{name}/bias"] if f"{name}/bias" in constants else scaled


def numpys_step(constants, weights, token, state):
    """One step in numpy from the constants of the file: logits [V] and state [S]."""
    names = GATES[weights.cell]
    kinds = 1 if weights.cell == "gru" else 2
    before, after, hidden, below = np.split(state, len(weights.layers) * kinds), [], None, "embedding"
    for i in range(len(weights.layers)):
        scope, first = f"layer_{i}", f"layer_{i}/{names[0]}"
        h, *c = before[i * kinds : (i + 1) * kinds]
        if hidden is None and "layer_0/table/rows" in constants:
            a = constants["layer_0/table/rows"][token] * constants["layer_0/table/rows/scale"]
        else:
            if hidden is None:
                hidden = constants["embedding/rows"][token] * constants["embedding/rows/scale"]
            a = integer_product(constants, f"{first}/input/all", below, hidden)
        single = len(weights.layers) * kinds == 1
        b = integer_product(constants, f"{first}/recurrent/all", "state" if single else f"{scope}/h", h)
        gates = list(zip(np.split(a, len(names)), np.split(b, len(names)), strict=True))
        if weights.cell == "gru":
            z, r = (reference.sigmoid(x + u) for x, u in gates[:2])
            candidate = np.tanh(gates[2][0] + r * gates[2][1])
            hidden = z * h + (1 - z) * candidate
            after.append(hidden)
        else:
            sums = [x + u for x, u in gates]
            cell = reference.sigmoid(sums[1]) * c[0] + reference.sigmoid(sums[0]) * np.tanh(sums[2])
            hidden = reference.sigmoid(sums[3]) * np.tanh(cell)
            after += [hidden, cell]
        below = f"{scope}/h/next"
    return integer_product(constants, "logits", below, hidden), np.concatenate(after)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("load", [on_litert, on_micro])
def test_each_step_is_numpys_integer_arithmetic(network, load):
    weights, ids, flatbuffer = build(network)
    step, constants = load(flatbuffer, weights), Constants(flatbuffer)
    state, logits = step.zeros(), step.empty_logits()
    levels = []
    for token in ids[:200]:
        expected, expected_state = numpys_step(constants, weights, token, state[0].astype(np.float64))
        step.advance(np.array([token]), state, logits)  # from the state that it made itself
        level = constants.scale("logits/int8") * constants["logits/weights/scale"]
        levels.append(np.abs(logits[0] - expected) / level)
        np.testing.assert_allclose(state[0], expected_state, atol=0.1)
    assert np.mean(levels) < 0.1  # a value between two levels may be rounded either way
    assert np.max(levels) < 4


@pytest.mark.parametrize("network", NETWORKS)
def test_it_stays_close_to_the_float_network(network):
    weights, ids, flatbuffer = build(network)
    step = on_litert(flatbuffer, weights)
    state, found = step.zeros(), np.empty((300, 30), np.float32)
    for i, token in enumerate(ids[:300]):
        step.advance(np.array([token]), state, found[i : i + 1])
    expected, _ = reference.run_model(weights, ids[:300])
    here, there = reference.log_softmax(found), reference.log_softmax(expected)
    assert (np.exp(there) * (there - here)).sum(axis=1).mean() < 0.01


def test_the_scale_is_the_one_with_the_least_squared_error():
    values = np.abs(np.random.default_rng(0).laplace(size=200_000))
    histogram = np.histogram(values, BINS, (0, values.max()))[0]

    def squared_error(scale):
        return ((np.clip(np.rint(values / scale), -127, 127) * scale - values) ** 2).mean()

    found = best_scale(histogram, values.max())
    assert found < 0.8 * values.max() / 127  # some values are clipped
    assert squared_error(found) < 1.01 * min(squared_error(values.max() * part / 127) for part in np.linspace(0.05, 1, 150))


def test_a_state_has_the_scale_of_its_bounds_and_an_output_one_of_what_was_met():
    weights = Weights.random("lstm", 2, embedding_dim=8)
    graph = build_step(weights)
    scales = {tensor.name: scale for tensor, scale in activation_scales(graph, np.arange(60, dtype=np.int32)).items()}
    assert {scales[f"layer_{i}/h"] for i in range(2)} | {scales["layer_1/h/next"]} == {1 / 127}
    assert 0 < scales["embedding"] <= np.abs(weights.embedding).max() / 127
    assert all(scale > 0 for scale in scales.values())


def test_the_operators_are_among_those_of_tensorflow_lite_micro():
    _, _, flatbuffer = build("deep lstm, table not folded")
    assert operators(flatbuffer) == [
        "ADD", "CAST", "CONCATENATION", "DEQUANTIZE", "FULLY_CONNECTED", "GATHER", "LOGISTIC", "MUL", "QUANTIZE", "SPLIT", "TANH",
    ]  # fmt: skip


def test_the_arena_is_enough_and_hardly_more_than_that():
    weights, _, flatbuffer = build("gru")
    arena = on_micro(flatbuffer, weights).arena_bytes()
    from tflite_micro import runtime

    assert arena % 16 == 0
    runtime.Interpreter.from_bytes(flatbuffer, arena_size=arena)
    with pytest.raises(RuntimeError):
        runtime.Interpreter.from_bytes(flatbuffer, arena_size=int(arena / 1.15))


def test_the_manifest_says_what_a_microcontroller_needs(models):
    if installed_micro() is None:
        pytest.skip("tflite-micro is not installed: it has wheels for Python 3.11 on x86-64 Linux alone")
    contents = read_model_file(models(quantization="int8-static").path)
    manifest = contents.manifest
    assert [entry.name for entry in manifest.interpreters] == ["ai-edge-litert", "tflite-runtime", "tflite-micro"]
    assert manifest.microcontroller.operators == operators(contents.flatbuffer)
    assert manifest.verified[-1].interpreter == "tflite-micro"
    assert manifest.verified[-1].loss < 0.02


def test_without_tensorflow_lite_micro_a_file_is_not_marked_for_it(tmp_path, monkeypatch):
    from charedge.converter import build as module

    monkeypatch.setattr(module, "installed_micro", lambda: None)
    manifest = read_model_file(build_model_file(tmp_path / "m.tflite", "int8-static").path).manifest
    assert [entry.name for entry in manifest.interpreters] == ["ai-edge-litert", "tflite-runtime"]
    assert manifest.microcontroller is None
    assert b"microcontroller" not in manifest.to_json()


@pytest.mark.parametrize("quantization", list(PROFILES))
def test_no_tensor_has_a_shape_signature(models, quantization):
    flatbuffer = read_model_file(models(quantization=quantization).path).flatbuffer
    subgraph = schema.Model.GetRootAs(flatbuffer, 0).Subgraphs(0)
    assert all(subgraph.Tensors(i).ShapeSignatureIsNone() for i in range(subgraph.TensorsLength()))
    assert struct.unpack_from("<4x4s", flatbuffer) == (b"TFL3",)


def test_files_of_the_earlier_kind_still_load_and_resize(tmp_path, monkeypatch):
    from charedge.converter import build, graph

    def with_shape_signature(tensor, buffers, original=graph._tensor):
        packed = original(tensor, buffers)
        if graph.BATCH in tensor.shape:
            packed.shapeSignature = list(tensor.shape)
        return packed

    now = build_model_file(tmp_path / "now.tflite", "int8")
    monkeypatch.setattr(graph, "_tensor", with_shape_signature)
    monkeypatch.setattr(build, "check_structure", lambda *_: None)
    earlier = build_model_file(tmp_path / "earlier.tflite", "int8")
    assert earlier.path.read_bytes() != now.path.read_bytes()
    prompts = ["The ", "And ", "But "]
    assert load(earlier.path).generate_batch(prompts, length=20, seed=1) == load(now.path).generate_batch(
        prompts, length=20, seed=1
    )


@pytest.mark.parametrize("quantization", list(PROFILES))
def test_any_number_of_rows_comes_out_as_each_row_does_alone(models, quantization):
    model = load(models(quantization=quantization).path)
    prompts = ["The ", "And ", "But ", "So ", "Then ", "I ", "You ", "We "]
    together = model.generate_batch(prompts, length=20, temperature=0)
    assert together == [model.generate(prompt, length=20, temperature=0) for prompt in prompts]
