"""ONNX Runtime on charedge's own step graph, the input table folded, under charedge's own sampler."""

# The peers are installed by `make bench-runtime`, not with the tools.
# pyright: reportMissingImports=false

from __future__ import annotations

import itertools
import logging
import tempfile
from pathlib import Path

import numpy as np
import onnxruntime
from charedge.converter.step import Weights
from charedge.runtime.sampling import Sampler, Sampling, random_rows
from onnx import ModelProto, TensorProto, helper, load, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic
from random_models import VOCABULARY, random_weights
from step_loop import START, TEMPERATURE, Loop

OPSET, IR_VERSION = 17, 10


def step_model(weights: Weights) -> ModelProto:
    """token int32 [1], state [1, units] -> logits [1, V], next_state [1, units]."""
    (layer,) = weights.layers
    units = weights.units
    constants = {
        "table": weights.embedding @ layer.kernel + layer.input_bias,  # [V, 3 x units]
        "recurrent_kernel": layer.recurrent_kernel,  # [units, 3 x units]
        "recurrent_bias": layer.recurrent_bias,
        "output_kernel": weights.output_kernel,  # [units, V]
        "output_bias": weights.output_bias,
        "gates": np.array([2 * units, units]),
        "halves": np.array([units, units]),
    }
    nodes = [
        ("Gather", "table token", "x", {"axis": 0}),
        ("MatMul", "state recurrent_kernel", "product", {}),
        ("Add", "product recurrent_bias", "u", {}),
        ("Split", "x gates", "x_gates x_candidate", {"axis": 1}),
        ("Split", "u gates", "u_gates u_candidate", {"axis": 1}),
        ("Add", "x_gates u_gates", "gate_sums", {}),
        ("Sigmoid", "gate_sums", "gate_values", {}),
        ("Split", "gate_values halves", "update reset", {"axis": 1}),
        ("Mul", "reset u_candidate", "reset_candidate", {}),
        ("Add", "x_candidate reset_candidate", "candidate_sum", {}),
        ("Tanh", "candidate_sum", "candidate", {}),
        ("Sub", "state candidate", "difference", {}),
        ("Mul", "update difference", "kept", {}),
        ("Add", "candidate kept", "next_state", {}),
        ("MatMul", "next_state output_kernel", "unbiased", {}),
        ("Add", "unbiased output_bias", "logits", {}),
    ]
    graph = helper.make_graph(
        [helper.make_node(kind, inputs.split(), outputs.split(), **options) for kind, inputs, outputs, options in nodes],
        "step",
        [
            helper.make_tensor_value_info("token", TensorProto.INT32, [1]),
            helper.make_tensor_value_info("state", TensorProto.FLOAT, [1, units]),
        ],
        [
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, weights.vocabulary_size]),
            helper.make_tensor_value_info("next_state", TensorProto.FLOAT, [1, units]),
        ],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)


def quantized(model: ModelProto, per_channel: bool) -> ModelProto:
    """Int8 weights, with a scale for each output (as charedge has) or one for each matrix (the default there, and quicker)."""
    logging.disable(logging.WARNING)  # it recommends a preparation that changes nothing in this graph
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "step.onnx"
        quantize_dynamic(model, path, per_channel=per_channel, weight_type=QuantType.QInt8)
        return load(path)


def generation(model: ModelProto, units: int) -> Loop:
    """Every tensor is bound once to an array of ours; two states take turns as input and output."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    token, logits = np.zeros(1, np.int32), np.zeros((1, len(VOCABULARY)), np.float32)
    states = [np.zeros((1, units), np.float32) for _ in range(2)]

    def bind(state: np.ndarray, next_state: np.ndarray) -> onnxruntime.IOBinding:
        binding = session.io_binding()
        for name, array in {"token": token, "state": state}.items():
            binding.bind_input(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
        for name, array in {"logits": logits, "next_state": next_state}.items():
            binding.bind_output(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
        return binding

    bindings = [bind(*states), bind(*reversed(states))]
    sampling = Sampling(temperature=TEMPERATURE)
    tokens = VOCABULARY.tokens

    def loop(characters: int) -> str:
        sampler = Sampler(sampling, sampling.bias(VOCABULARY), random_rows(1, 1), [np.empty(0, np.int32)])
        token[0], states[0][:] = tokens.index(START), 0
        pieces = []
        for binding in itertools.islice(itertools.cycle(bindings), characters):
            session.run_with_iobinding(binding)
            token[:] = sampler(logits)
            pieces.append(tokens[token.item()])
        return "".join(pieces)

    return loop


def loops(units: int) -> dict[str, Loop]:
    model = step_model(random_weights(units))
    return {
        "ONNX Runtime float32": generation(model, units),
        "ONNX Runtime int8, per channel": generation(quantized(model, per_channel=True), units),
        "ONNX Runtime int8, per tensor": generation(quantized(model, per_channel=False), units),
    }
