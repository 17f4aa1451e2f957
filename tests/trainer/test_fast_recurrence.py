"""The recurrent layers with a gradient of their own, against those of Keras."""

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from charedge.trainer.fast_recurrence import FastGRU, FastLSTM

BATCH, TIME, INPUTS, UNITS = 6, 23, 7, 19
KERAS = {"gru": keras.layers.GRU, "lstm": keras.layers.LSTM}
FAST = {"gru": FastGRU, "lstm": FastLSTM}
STATES = {"gru": 1, "lstm": 2}
CELLS = pytest.mark.parametrize("cell", ["gru", "lstm"])


def built(layer_class, dtype="float32"):
    layer = layer_class(UNITS, return_sequences=True, return_state=True, dtype=dtype)
    layer.build((None, None, INPUTS))
    random = np.random.default_rng(0)
    layer.set_weights([random.normal(scale=0.4, size=weight.shape) for weight in layer.weights])
    return layer


def random_call(cell):
    """Inputs, states, and what to weigh the outputs and states with in a loss."""
    random = np.random.default_rng(1)
    shapes = [(BATCH, TIME, INPUTS), *[(BATCH, UNITS)] * STATES[cell], (BATCH, TIME, UNITS), *[(BATCH, UNITS)] * STATES[cell]]
    arrays = [tf.constant(random.normal(size=shape), tf.float32) for shape in shapes]
    return arrays[: 1 + STATES[cell]], arrays[1 + STATES[cell] :]


def outputs_and_gradients(layer, arguments, weights):
    """Outputs, states, and the gradients of inputs, states and weights; the gradients are 0 where nothing flows."""
    with tf.GradientTape() as tape:
        tape.watch(arguments)
        outputs = layer(arguments[0], initial_state=arguments[1:], training=True)
        loss = tf.add_n([tf.reduce_sum(tf.cast(o, tf.float32) * w) for o, w in zip(outputs, weights, strict=True)])
    return [*outputs, *tape.gradient(loss, [*arguments, *layer.trainable_variables])]


def assert_close(results, expected, tolerance):
    assert len(results) == len(expected)
    for result, reference in zip(results, expected, strict=True):
        assert result.shape == reference.shape
        difference, size = (float(tf.norm(tf.cast(x, tf.float32))) for x in (tf.cast(result, tf.float32) - reference, reference))
        assert difference <= tolerance * size


@CELLS
@pytest.mark.parametrize("compiled", ["eager", "static", "dynamic"])
def test_outputs_states_and_gradients_are_those_of_keras(cell, compiled):
    arguments, weights = random_call(cell)
    expected = outputs_and_gradients(built(KERAS[cell]), arguments, weights)
    layer = built(FAST[cell])

    def call(*arguments):
        return outputs_and_gradients(layer, list(arguments), weights)

    if compiled != "eager":
        signature = [tf.TensorSpec([None] * (x.ndim - 1) + [x.shape[-1]]) for x in arguments] if compiled == "dynamic" else None
        call = tf.function(call, input_signature=signature)
    assert_close(call(*arguments), expected, 1e-5)


@CELLS
def test_bfloat16_is_as_close_to_float32_as_that_of_keras(cell):
    arguments, weights = random_call(cell)
    expected = outputs_and_gradients(built(KERAS[cell]), arguments, weights)
    assert_close(outputs_and_gradients(built(FAST[cell], "mixed_bfloat16"), arguments, weights), expected, 0.02)


@CELLS
def test_a_missing_state_is_zero_and_one_step_is_a_sequence(cell):
    (x, *_), _ = random_call(cell)
    for result, expected in zip(built(FAST[cell])(x[:, :1], training=True), built(KERAS[cell])(x[:, :1]), strict=True):
        np.testing.assert_allclose(result, expected, atol=1e-6)


@CELLS
def test_inference_gives_what_keras_gives_and_saves_nothing(cell):
    (x, *states), _ = random_call(cell)
    fast, expected = built(FAST[cell]), built(KERAS[cell])(x, initial_state=states)
    assert_close(fast(x, initial_state=states, training=False), expected, 1e-5)

    def arrays(training):
        graph = tf.function(fast.call, autograph=False).get_concrete_function(x, initial_state=states, training=training).graph
        return sum(node.op == "TensorListReserve" for node in graph.as_graph_def().node)

    assert arrays(training=False) == 1
    assert arrays(training=True) > 1


@CELLS
def test_the_layer_is_used_only_for_options_that_it_supports(cell):
    """A mask and other activations take Keras' own way."""
    (x, *_), _ = random_call(cell)
    mask = tf.sequence_mask([TIME, 3, 1, TIME, 8, 2], TIME)
    fast, plain = built(FAST[cell]), built(KERAS[cell])
    for result, expected in zip(fast(x, mask=mask, training=True), plain(x, mask=mask, training=True), strict=True):
        np.testing.assert_array_equal(result, expected)
    relu, plain_relu = (layer(UNITS, activation="relu", return_sequences=True) for layer in (FAST[cell], KERAS[cell]))
    plain_relu.build(x.shape)
    relu.build(x.shape)
    relu.set_weights(plain_relu.get_weights())
    np.testing.assert_array_equal(relu(x, training=True), plain_relu(x, training=True))


@CELLS
def test_weights_and_configuration_are_those_of_keras(cell):
    fast, plain = built(FAST[cell]), built(KERAS[cell])
    assert [(w.name, w.shape) for w in fast.weights] == [(w.name, w.shape) for w in plain.weights]
    plain.set_weights(fast.get_weights())
    config = fast.get_config()
    assert {**config, "name": ""} == {**plain.get_config(), "name": ""}
    assert type(plain).from_config(config).name == fast.name


@CELLS
def test_gradients_flow_through_a_kernel_that_a_scope_has_replaced(cell):
    arguments, weights = random_call(cell)
    gradients = []
    for layer in (built(FAST[cell]), built(KERAS[cell])):
        kernel = layer.cell.recurrent_kernel
        kept = tf.cast(np.random.default_rng(2).random(kernel.shape) < 0.5, tf.float32)
        with tf.GradientTape() as tape:
            with keras.StatelessScope(state_mapping=[(kernel, tf.convert_to_tensor(kernel.value) * kept)]):
                outputs = layer(arguments[0], initial_state=arguments[1:], training=True)
            loss = tf.add_n([tf.reduce_sum(o * w) for o, w in zip(outputs, weights, strict=True)])
        gradients.append(tape.gradient(loss, layer.trainable_variables))
        assert not np.any(gradients[-1][1][kept == 0])
    found, expected = gradients
    assert_close(found, expected, 1e-5)


def check_replicas(cell):
    """Two logical devices share a batch; their gradients add up to those of one, and to the same bytes every time."""
    tf.config.experimental.enable_op_determinism()
    (processor,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(processor, [tf.config.LogicalDeviceConfiguration()] * 2)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    arguments, weights = random_call(cell)
    expected = outputs_and_gradients(built(KERAS[cell]), arguments, weights)[-3:]
    with strategy.scope():
        layer = built(FAST[cell])

    def replica():
        first = tf.distribute.get_replica_context().replica_id_in_sync_group * (BATCH // 2)
        share = ([x[first : first + BATCH // 2] for x in values] for values in (arguments, weights))
        return outputs_and_gradients(layer, *share)[-3:]

    step = tf.function(lambda: [strategy.reduce("sum", gradient, axis=None) for gradient in strategy.run(replica)])
    once, again = step(), step()
    assert_close(once, expected, 1e-5)
    for one, other in zip(once, again, strict=True):
        assert np.array_equal(one, other)


@CELLS
def test_two_replicas_add_up_to_one(cell, fork_server, monkeypatch):
    """In a process of their own: devices and determinism are set once in a process."""
    code = f"from {Path(__file__).stem} import check_replicas; check_replicas({cell!r})"
    monkeypatch.chdir(Path(__file__).parent)
    result = fork_server.run(["-c", code])
    assert result.returncode == 0, result.stderr
