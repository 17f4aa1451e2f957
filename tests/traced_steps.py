"""Trace the training step that a GPU would run, on a machine without one, and print what each graph holds as JSON.

python tests/traced_steps.py REPLICAS
"""

import itertools
import json
import sys
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from charedge.runtime.vocabulary import Vocabulary
from charedge.trainer import weight_noise
from charedge.trainer.distribution import deal
from charedge.trainer.learner import CUDNN_LAYERS
from charedge.trainer.model import build_model, state_size
from charedge.trainer.optimization import build_optimizer, compile_train_step, schedule_of
from charedge.trainer.teachers import Teachers
from configs import make_config
from tensorflow.python.framework.kernels import get_registered_kernels_for_op

VOCABULARY_SIZE = 10
FORWARD, BACKWARD = "CudnnRNNV3", "CudnnRNNBackpropV3"
SUMS = {"AddN", "AddV2", "Add"}
CHOICES = {
    "cell": ("gru", "lstm"),
    "precision": ("float32", "mixed_float16"),
    "weight_drop": (0.0, 0.2),
    "quantization_aware": (None, "int4"),
}
SHARED = {"units": 8, "embedding_dim": 4, "sequence_length": 6, "batch_size": 4, "epochs": 1, "warmup": 0, "learning_rate": 0.01}


def traced(strategy, options, summed_by_keras=False):
    """What the graph of one training step holds, built as `Learner` builds it on a GPU.

    Args:
        strategy: the replicas.
        options: the fields of the configuration in which steps differ.
        summed_by_keras: leave the optimiser's own all-reduce in place.
    """
    config = make_config(**{**SHARED, **options})
    with strategy.scope():
        model = build_model(VOCABULARY_SIZE, config, config.precision, True, CUDNN_LAYERS)
        teachers = Teachers([], Vocabulary.of(""), config.precision, True, CUDNN_LAYERS)
        seeds = keras.random.SeedGenerator(config.seed)
        optimizer = build_optimizer(model, config, schedule_of(config, 10))
    if summed_by_keras:
        del optimizer._all_reduce_sum_gradients
    step = compile_train_step(model, teachers, optimizer, config, config.batch_size, seeds, strategy)
    windows = np.zeros((config.batch_size, config.sequence_length + 1), np.int32)
    state = np.zeros((config.batch_size, state_size(config.cell, config.layers, config.units)), np.float32)
    arguments = deal(strategy, windows), deal(strategy, state), tf.zeros(2)
    graph = tf.function(step).get_concrete_function(*arguments).graph.as_graph_def()
    bodies = [graph.node, *(function.node_def for function in graph.library.function)]
    nodes = [node for body in bodies for node in body]
    return {
        **options,
        "layers": config.layers,
        "forward": [types(node) for node in nodes if node.op == FORWARD],
        "backward": [types(node) for node in nodes if node.op == BACKWARD],
        "loops": [node.op for node in nodes if node.op.endswith("While")],
        "reductions": sum(reductions(body, strategy.num_replicas_in_sync) for body in bodies),
        "variables": len(model.trainable_variables),
    }


def types(node):
    return tf.as_dtype(node.attr["T"].type).name


def reductions(body, replicas):
    """How many sums take one tensor from the device of each replica."""
    devices = {node.name: node.device for node in body}
    sums = [[devices.get(name.split(":")[0]) for name in node.input if name[0] != "^"] for node in body if node.op in SUMS]
    return sum(replicas > 1 and len(found) == replicas == len({device for device in found if device}) for found in sums)


def gpu_types(op):
    """The types for which TensorFlow has an operator's kernel on a GPU."""
    constraints = [
        c for kernel in get_registered_kernels_for_op(op).kernel if kernel.device_type == "GPU" for c in kernel.constraint
    ]
    return sorted(tf.as_dtype(t).name for c in constraints if c.name == "T" for t in c.allowed_values.list.type)


def main():
    replicas = int(sys.argv[1])
    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * replicas)
    devices = [f"CPU:{i}" for i in range(replicas)]
    crossing = tf.distribute.ReductionToOneDevice()
    strategy = tf.distribute.MirroredStrategy(devices, crossing) if replicas > 1 else tf.distribute.get_strategy()
    keras_rnn: Any = sys.modules["keras.src.backend.tensorflow.rnn"]
    keras_rnn._is_gpu_available = lambda: True  # what Keras asks before it takes cuDNN
    weight_noise.OCTAV_ITERATIONS = 1  # where to clip is not looked at here, and takes long to trace
    combinations = [dict(zip(CHOICES, values, strict=True)) for values in itertools.product(*CHOICES.values())]
    if replicas > 1:  # twice as long to trace: the matrices are replaced in both ways, or in neither
        combinations = [options for options in combinations if bool(options["weight_drop"]) == bool(options["quantization_aware"])]
    shuffled = {**combinations[0], "batching": "shuffled"}
    steps = [traced(strategy, options) for options in (*combinations, shuffled)]
    print(json.dumps({"steps": steps, "gpu_types": {op: gpu_types(op) for op in (FORWARD, BACKWARD)}}))
    if replicas > 1:
        print(json.dumps(traced(strategy, combinations[0], summed_by_keras=True)))


if __name__ == "__main__":
    main()
