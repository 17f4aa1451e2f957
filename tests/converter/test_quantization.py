"""What each profile does to the weights, against independent computations and other people's tools."""

import numpy as np
import pytest
import reference
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from ai_edge_quantizer import qtyping, quantizer
from charedge.converter.activation_scales import activation_scales
from charedge.converter.graph import Graph
from charedge.converter.profiles import PROFILES
from charedge.converter.quantization import Statistics, quantize
from charedge.converter.rounding import gptq, octav_scale
from charedge.converter.second_moments import second_moments
from charedge.converter.step import Weights, build_step
from charedge.runtime.model_file import read_model_file


def steps(flatbuffer, ids, **options):
    """Logits [n, V] after each id, by LiteRT's own signature runner."""
    runner = Interpreter(model_content=bytes(flatbuffer), **options).get_signature_runner("step")
    state, logits = np.zeros(runner.get_input_details()["state"]["shape"], np.float32), []
    for token in ids:
        out = runner(token=np.array([token], np.int32), state=state)
        state = out["state"]
        logits.append(out["logits"][0])
    return np.array(logits)


def by_ai_edge_quantizer(graph: Graph, bits, algorithm="min_max_uniform_quantize"):
    """The same graph quantised by Google's tool: every FULLY_CONNECTED dynamically, a scale for each output."""
    weights = qtyping.TensorQuantizationConfig(num_bits=bits, symmetric=True, granularity=qtyping.QuantGranularity.CHANNELWISE)
    tool = quantizer.Quantizer(bytearray(graph.to_flatbuffer("step", "", {})))
    tool.update_quantization_recipe(
        regex=".*",
        operation_name=qtyping.TFLOperationName.FULLY_CONNECTED,
        op_config=qtyping.OpQuantizationConfig(weight_tensor_config=weights, compute_precision=qtyping.ComputePrecision.INTEGER),
        algorithm_key=algorithm,
    )
    return tool.quantize().quantized_model


@pytest.fixture(scope="module")
def network():
    """Weights, 2,000 ids that they would write themselves, their float graph, and numpy's logits."""
    weights = Weights.random(units=96, vocabulary_size=40, embedding_dim=64, seed=3)
    random, state, ids = np.random.default_rng(4), None, [1]
    for _ in range(2000):
        logits, state = reference.run_model(weights, ids[-1:], state)
        ids.append(int((logits[0] + random.gumbel(size=logits.shape[1])).argmax()))
    ids = np.array(ids[1:], np.int32)
    logits, _ = reference.run_model(weights, ids)
    return weights, ids, build_step(weights), logits


def error(flatbuffer, network):
    """The mean divergence from numpy's float64 distributions, in nats."""
    _, ids, _, logits = network
    here, there = reference.log_softmax(steps(flatbuffer, ids[:800])), reference.log_softmax(logits[:800])
    return float((np.exp(there) * (there - here)).sum(axis=1).mean())


def flatbuffer_of(network, name):
    _, ids, graph, _ = network
    return quantize(graph, PROFILES[name], statistics(graph, ids)).to_flatbuffer("step", "", {})


def statistics(graph, ids):
    return Statistics(second_moments(graph, ids), activation_scales(graph, ids))


def test_the_profiles_lose_in_the_order_of_their_bits(network):
    errors = [error(flatbuffer_of(network, name), network) for name in PROFILES]
    assert errors == sorted(errors)
    for error_found, most in zip(errors, (1e-9, 1e-5, 1e-3, 1e-2, 5e-2), strict=True):
        assert error_found < most


def test_int8_is_as_good_as_ai_edge_quantizers(network):
    ours, theirs = flatbuffer_of(network, "int8"), by_ai_edge_quantizer(network[2], 8)
    assert error(ours, network) < 2 * error(theirs, network)
    assert len(ours) < len(theirs)  # which leaves the table in float


def test_int4_is_better_than_ai_edge_quantizers(network):
    ours = flatbuffer_of(network, "int4")
    for algorithm in ("min_max_uniform_quantize", "OCTAV", "MSE"):
        theirs = by_ai_edge_quantizer(network[2], 4, algorithm)
        assert error(ours, network) < 0.5 * error(theirs, network)
        assert len(ours) < len(theirs)


def test_int8_is_as_good_as_tensorflows_dynamic_range(network):
    import tensorflow as tf

    weights, _, _, _ = network
    layer = weights.layers[0]

    @tf.function(input_signature=[tf.TensorSpec([1], tf.int32), tf.TensorSpec([1, weights.state_size])])
    def step(token, state):
        columns = tf.split(tf.gather(weights.embedding @ layer.kernel + layer.input_bias, token), 3, axis=1)
        z, r, c = columns
        uz, ur, uc = tf.split(tf.matmul(state, layer.recurrent_kernel) + layer.recurrent_bias, 3, axis=1)
        z, r = tf.sigmoid(z + uz), tf.sigmoid(r + ur)
        state = z * state + (1 - z) * tf.tanh(c + r * uc)
        return {"logits": tf.matmul(state, weights.output_kernel) + weights.output_bias, "state": state}

    module = tf.Module()
    module.step = step
    converter = tf.lite.TFLiteConverter.from_concrete_functions([step.get_concrete_function()], module)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    runner = Interpreter(model_content=converter.convert()).get_signature_runner("serving_default")
    _, ids, _, logits = network
    state, found = np.zeros((1, weights.state_size), np.float32), []
    for token in ids[:800]:
        out = runner(token=np.array([token], np.int32), state=state)
        state = out["state"]
        found.append(out["logits"][0])
    here, there = reference.log_softmax(np.array(found)), reference.log_softmax(logits[:800])
    theirs = float((np.exp(there) * (there - here)).sum(axis=1).mean())
    assert error(flatbuffer_of(network, "int8"), network) < 2 * theirs


def test_octav_finds_the_scale_with_the_least_squared_error():
    weights = np.random.default_rng(0).laplace(size=(20, 4000))
    found = octav_scale(weights)
    for row, scale in zip(weights, found, strict=True):
        candidates = np.abs(row).max() / 7 * np.linspace(0.05, 1, 400)

        def squared_error(s, row=row):
            return ((np.clip(np.rint(row / s), -7, 7) * s - row) ** 2).mean()

        assert squared_error(scale) < 1.06 * min(map(squared_error, candidates))


@pytest.mark.parametrize("weights", [np.zeros((2, 8)), np.full((2, 8), 0.3), np.eye(8)], ids=["zeros", "equal", "sparse"])
def test_odd_weights_have_a_scale(weights):
    scale = octav_scale(weights)
    levels = gptq(weights.astype(np.float32), scale, np.eye(8))
    assert (scale > 0).all()
    np.testing.assert_allclose(levels * scale[:, None], weights, atol=0.08)


def test_gptq_loses_less_on_what_the_matrix_meets_than_rounding_each_weight():
    random = np.random.default_rng(1)
    inputs = random.normal(size=(3000, 64)) @ random.normal(size=(64, 64))  # correlated
    weights = random.normal(size=(50, 64)).astype(np.float32)
    scale = np.abs(weights).max(axis=1) / 7
    levels = gptq(weights, scale, inputs.T @ inputs / len(inputs))
    nearest = np.rint(weights / scale[:, None])

    def loss(rounded):
        return ((inputs @ (rounded * scale[:, None] - weights).T) ** 2).mean()

    assert loss(levels) < 0.5 * loss(nearest)
    assert np.abs(levels).max() <= 7


def test_gptq_on_uncorrelated_inputs_rounds_to_the_nearest():
    weights = np.random.default_rng(1).normal(size=(20, 300)).astype(np.float32)
    scale = octav_scale(weights)
    np.testing.assert_array_equal(gptq(weights, scale, np.eye(300)), np.clip(np.rint(weights / scale[:, None]), -7, 7))


@pytest.mark.parametrize("shape", [{}, {"cell": "lstm", "layers": 2}], ids=["gru", "lstm"])
def test_the_second_moments_are_those_of_numpys_states(shape):
    weights = Weights.random(units=12, vocabulary_size=20, embedding_dim=5, **shape)
    graph, ids = build_step(weights, fold=False), np.random.default_rng(2).integers(0, 20, 49).astype(np.int32)
    states = [np.zeros(weights.state_size)]
    for token in ids:
        states.append(reference.run_model(weights, [token], states[-1])[1])
    states = np.array(states)
    moments = {tensor.name: moment for tensor, moment in second_moments(graph, ids).items()}
    after, before, embedded = states[1:, -24 if shape else 0 :][:, :12], states[:-1, :12], weights.embedding[ids]
    gate = "input" if shape else "update"
    for name, inputs in (("logits", after), (f"layer_0/{gate}/recurrent/all", before), (f"layer_0/{gate}/input/all", embedded)):
        np.testing.assert_allclose(moments[f"{name}/weights"], inputs.T @ inputs / len(ids), atol=1e-5)


def test_int4_works_without_xnnpack_but_is_refused_there(models, charedge, monkeypatch):
    import ai_edge_litert.interpreter as module

    made, original = models(quantization="int4", units=64), module.Interpreter

    def without_xnnpack(**options):
        return original(**options, experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES)

    assert charedge("verify", made.path).status == 0
    monkeypatch.setattr(module, "Interpreter", without_xnnpack)
    result = charedge("verify", made.path)
    assert (result.status, "XNNPACK" in result.stderr, "--quantization int8" in result.stderr) == (1, True, True)
    assert charedge("verify", models(quantization="int8", units=64).path).status == 0


@pytest.mark.parametrize("rows", [2, 4, 5, 9])
def test_int4_rows_come_out_as_they_do_alone(models, rows):
    from charedge.runtime.interpreter import Step

    step = Step.load(read_model_file(models(quantization="int4", units=64).path))
    random = np.random.default_rng(rows)
    tokens = random.integers(1, step.vocabulary_size, rows)
    state = random.normal(size=(rows, step.state_size)).astype(np.float32)
    logits, after = step(tokens, state)
    for row in range(rows):
        alone = step(tokens[row : row + 1], state[row : row + 1])
        np.testing.assert_array_equal(logits[row], alone[0][0])
        np.testing.assert_array_equal(after[row], alone[1][0])


@pytest.mark.parametrize("vocabulary_size", [2, 3, 20_000])
@pytest.mark.parametrize("quantization", list(PROFILES))
def test_any_vocabulary_can_be_quantised(vocabulary_size, quantization):
    weights = Weights.random(units=16, vocabulary_size=vocabulary_size, embedding_dim=8)
    ids = np.random.default_rng(0).integers(0, vocabulary_size, 120).astype(np.int32)
    graph = build_step(weights)
    found = steps(quantize(graph, PROFILES[quantization], statistics(graph, ids)).to_flatbuffer("step", "", {}), ids)
    expected, _ = reference.run_model(weights, ids)
    assert np.abs(found - expected).mean() < 0.12 * expected.std()
