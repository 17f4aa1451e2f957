"""What `gpu.py` measures inside TensorFlow, each in a process of its own; prints one line of JSON.

python tests/gpu_child.py describe
python tests/gpu_child.py gradients PRECISION...
python tests/gpu_child.py losses TEXT UNITS STEPS DEVICES PRECISION...
"""

import json
import platform
import sys
import time
from dataclasses import asdict
from importlib.metadata import version
from itertools import islice

import numpy as np
import tensorflow as tf
from charedge.trainer.accelerators import Hardware, find_gpus
from charedge.trainer.dataset import Data
from charedge.trainer.distribution import choose_strategy, deal, divide_cpu
from charedge.trainer.encoding import encode_corpus
from charedge.trainer.fast_recurrence import FAST_LAYERS
from charedge.trainer.gradient_check import check_gradient
from charedge.trainer.learner import CUDNN_LAYERS, Learner
from configs import make_config

from charedge import CharedgeError

ROWS, CHARACTERS = 24, 100
VALIDATION_SPLIT = 0.1
SETTINGS = {
    **{"embedding_dim": 64, "dropout": 0.0, "epochs": 1, "sequence_length": CHARACTERS, "batch_size": ROWS},
    **{"learning_rate": 0.002, "learning_rate_decay": "none", "warmup": 0, "validation_split": VALIDATION_SPLIT},
}


def ignore(message):
    print(message, file=sys.stderr)


def describe():
    """The GPUs, why there is none, and the versions that a report of a problem needs."""
    warnings = []
    try:
        gpus = find_gpus(warnings.append)
    except CharedgeError as error:
        gpus, warnings = (), [str(error)]
    build = tf.sysconfig.get_build_info()
    versions = {name: version(name) for name in ("tensorflow", "keras", "numpy", "charedge")}
    cuda = {name: str(build[f"{name}_version"]) for name in ("cuda", "cudnn") if f"{name}_version" in build}
    return {
        "gpus": [asdict(gpu) for gpu in gpus],
        "warnings": warnings,
        "versions": {"python": platform.python_version(), **versions, **cuda},
    }


def gradients(*precisions):
    """The check that comes before a training, for each cell and precision: what differs and how long it took, or what was wrong."""
    gpus = find_gpus(ignore)
    devices = [device.name for device in tf.config.list_logical_devices("GPU")] if gpus else ["CPU:0"]
    cudnn, layers = (True, CUDNN_LAYERS) if gpus else ("auto", FAST_LAYERS)
    found = []
    for cell in ("gru", "lstm"):
        for precision in precisions:
            config = make_config(**SETTINGS, units=32, cell=cell, precision=precision)
            began, figures = time.perf_counter(), {}
            try:
                figures["difference"] = check_gradient(config, devices, cudnn, layers)
            except (CharedgeError, tf.errors.OpError, ValueError) as error:
                figures["error"] = str(error).strip()
            seconds = time.perf_counter() - began
            found.append({"cell": cell, "precision": precision, "seconds": seconds, **figures})
    return found


def losses(text, units, steps, devices, *precisions):
    """The loss of each training step by precision, from the same weights and windows, on a number of GPUs or CPU devices."""
    gpus = find_gpus(ignore)[: int(devices)]
    hardware = Hardware(gpus) if gpus else divide_cpu(int(devices))
    strategy = choose_strategy(hardware)
    encoded = encode_corpus([text], "NFC", None, 1)
    boundary = int(len(encoded.ids) * (1 - VALIDATION_SPLIT))
    data = Data(encoded.vocabulary, encoded.ids.part(0, boundary), encoded.ids.part(boundary, len(encoded.ids)))
    found = {}
    for precision in precisions:
        config = make_config(**SETTINGS, units=int(units), precision=precision)
        learner = Learner(config, data, hardware, strategy)
        random, state, values = np.random.default_rng(1), learner.zero_state(), []
        learner.model.set_weights([random.normal(scale=int(units) ** -0.5, size=w.shape) for w in learner.model.get_weights()])
        for windows in islice(learner.batches.epoch(0), int(steps)):
            loss, state, _ = learner.train_step(deal(strategy, windows), state, tf.zeros(2))
            values.append(float(loss))
        found[precision] = values
    return found


if __name__ == "__main__":
    print(json.dumps({"describe": describe, "gradients": gradients, "losses": losses}[sys.argv[1]](*sys.argv[2:])))
