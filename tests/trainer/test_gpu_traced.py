"""The training step that a GPU would run, traced on a machine without one: cuDNN's kernels, and what crosses the devices."""

import json
import os
import subprocess
import sys

import pytest
from conftest import REPOSITORY

TYPES = {"float32": "float32", "mixed_float16": "float16"}
COMBINATIONS = {1: 16 + 1, 2: 8 + 1}
"""Traced steps by replicas: combinations of cell, precision, weight drop and quantisation, and one with shuffled windows."""
LOSS_AND_ASKED = 2


@pytest.fixture(scope="module")
def traces():
    """The steps of one and of two replicas, each traced in a process of its own: a process sets its devices once."""
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    script, pipe = REPOSITORY / "tests" / "traced_steps.py", subprocess.PIPE
    processes = {
        n: subprocess.Popen([sys.executable, script, str(n)], env=environment, text=True, stdout=pipe, stderr=pipe) for n in (1, 2)
    }
    outputs = {n: process.communicate() for n, process in processes.items()}
    for n, process in processes.items():
        assert process.returncode == 0, outputs[n][1]
    return {n: [json.loads(line) for line in stdout.splitlines()] for n, (stdout, _) in outputs.items()}


@pytest.mark.parametrize("replicas", [1, 2])
def test_every_layer_is_one_cudnn_kernel_forwards_and_one_backwards_and_no_loop(traces, replicas):
    steps = traces[replicas][0]["steps"]
    assert len(steps) == COMBINATIONS[replicas]
    for step in steps:
        kernels = [TYPES[step["precision"]]] * step["layers"] * replicas
        assert (step["forward"], step["backward"], step["loops"]) == (kernels, kernels, []), step


@pytest.mark.parametrize("replicas", [1, 2])
def test_tensorflow_has_those_kernels_for_a_gpu(traces, replicas):
    types = traces[replicas][0]["gpu_types"]
    if not any(types.values()):
        pytest.skip("this TensorFlow was built without CUDA")
    for step in traces[replicas][0]["steps"]:
        assert set(step["forward"]) <= set(types["CudnnRNNV3"]), step
        assert set(step["backward"]) <= set(types["CudnnRNNBackpropV3"]), step


def test_gradients_cross_the_devices_once(traces):
    for step in traces[2][0]["steps"]:
        assert step["reductions"] == step["variables"] + LOSS_AND_ASKED, step


def test_the_optimizer_of_keras_would_send_them_a_second_time(traces):
    """Were it not so, the line that prevents it in `build_optimizer` could go; and the count above sees it."""
    step = traces[2][1]
    assert step["reductions"] == 2 * step["variables"] + LOSS_AND_ASKED
