"""Which accelerators a training finds, and what it reports when it cannot use them, on a machine that may have no GPU."""

import json
import os
import shutil

import pytest
import tensorflow as tf
from charedge.trainer import accelerators, learner, memory
from charedge.trainer.accelerators import Gpu, Hardware, find_gpus, has_nvidia_gpu, resolve_precision
from charedge.trainer.memory import require_memory
from configs import make_config
from conftest import TINY

from charedge import CharedgeError

T4, H100 = "Tesla T4", "NVIDIA H100 80GB HBM3"
GIGABYTE = 10**9


@pytest.fixture
def tensorflow_lists(monkeypatch):
    """A function that lets TensorFlow list GPUs of these names, the first so many of which it can use."""

    def call(*names, usable=None):
        devices = [tf.config.PhysicalDevice(f"/physical_device:GPU:{i}", "GPU") for i in range(len(names))]
        details = dict(zip(devices, names, strict=True))
        monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: devices)
        monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: devices[:usable])
        monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda device: {"device_name": details[device]})

    return call


@pytest.fixture
def nvidia_smi(tmp_path, monkeypatch):
    """A function that puts an `nvidia-smi` of this shell script first on PATH; None leaves PATH without any."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def call(script):
        if script is None:
            monkeypatch.setenv("PATH", str(folder))
            return
        (folder / "nvidia-smi").write_text(f"#!{shutil.which('sh')}\n{script}\n")
        (folder / "nvidia-smi").chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")

    return call


@pytest.fixture
def a_gpu(monkeypatch):
    """A GPU is found whose memory is full: a training ends where it would take some."""
    monkeypatch.setattr(accelerators, "find_gpus", lambda warn: (Gpu(H100, 80 * GIGABYTE, 0),))


def no_warning(message):
    raise AssertionError(message)


def assert_one_sentence(result, *parts):
    assert result.status == 1
    assert "Traceback" not in result.stderr
    assert all(part in result.stderr.splitlines()[-1] for part in parts), result.stderr


@pytest.mark.parametrize("name", ["dev/nvidia0", "proc/driver/nvidia/gpus/0000:00:04.0", "usr/lib/wsl/lib/libcuda.so.1"])
def test_a_driver_shows_a_gpu(tmp_path, monkeypatch, name):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev" / "nvidiactl").touch()  # the driver without a card
    assert not has_nvidia_gpu(tmp_path)
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).touch()
    assert has_nvidia_gpu(tmp_path)


@pytest.mark.parametrize(("visible", "shown"), [("", False), ("-1", False), (" -1", False), ("0", True), ("GPU-8932f937", True)])
def test_cuda_visible_devices_hides_a_gpu(tmp_path, monkeypatch, visible, shown):
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev" / "nvidia0").touch()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert has_nvidia_gpu(tmp_path) is shown


def test_train_warns_of_a_gpu_that_tensorflow_cannot_use_with_its_own_reason(charedge, corpus, tmp_path, monkeypatch):
    if tf.config.list_physical_devices("GPU"):
        pytest.skip("TensorFlow can use this machine's GPU")
    monkeypatch.setattr(accelerators, "has_nvidia_gpu", lambda: True)
    monkeypatch.setattr(memory, "available_bytes", lambda: 0)  # it ends before it trains
    lines = charedge("train", corpus, "--output", tmp_path / "run", *TINY).stderr.splitlines()
    warning = next(line for line in lines if "preset auto" not in line)
    assert warning.startswith("charedge: warning: this machine has an NVIDIA GPU and TensorFlow cannot use it (")
    assert "cuInit" in warning or "Could not find cuda drivers" in warning
    assert "training runs on the CPU" in warning
    assert "pip install 'charedge[gpu]'" in warning


def test_a_gpu_that_is_listed_and_cannot_start_is_one_sentence(charedge, corpus, tmp_path, monkeypatch, tensorflow_lists):
    def start(kind):
        raise tf.errors.InternalError(None, None, "CUDA_ERROR_DEVICE_UNAVAILABLE: all devices are busy\n[[a node]]")

    tensorflow_lists(H100)
    monkeypatch.setattr(tf.config, "list_logical_devices", start)
    result = charedge("train", corpus, "--output", tmp_path / "run", *TINY)
    assert_one_sentence(result, "cannot start with the GPU (CUDA_ERROR_DEVICE_UNAVAILABLE: all devices are busy)")
    assert "CUDA_VISIBLE_DEVICES=-1" in result.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("usable", "on_the_cpu"), [(1, False), (0, True)])
def test_gpus_that_tensorflow_skips_are_not_counted_and_are_warned_of(
    monkeypatch, tensorflow_lists, nvidia_smi, usable, on_the_cpu
):
    tensorflow_lists(H100, T4, usable=usable)
    nvidia_smi(None)
    monkeypatch.setattr(accelerators, "tensorflow_reason", lambda: "Ignoring visible gpu device")
    warnings = []
    assert find_gpus(warnings.append) == (Gpu(H100),) * usable
    (warning,) = warnings
    assert f"uses {usable} of this machine's 2 GPUs (Ignoring visible gpu device)" in warning
    assert ("training runs on the CPU" in warning) is on_the_cpu


def test_the_memory_is_what_nvidia_smi_says(tensorflow_lists, nvidia_smi):
    tensorflow_lists(H100, T4, H100)
    nvidia_smi(f"echo '{H100}, 81559, 80000'; echo '{T4}, 15360, 15000'; echo '{H100}, 81559, 4'")
    full = Gpu(H100, 81559 * 2**20, 4 * 2**20)
    assert find_gpus(no_warning) == (full, Gpu(T4, 15360 * 2**20, 15000 * 2**20), full)


def test_a_gpu_that_is_hidden_may_be_full(monkeypatch, tensorflow_lists, nvidia_smi):
    tensorflow_lists(H100)
    row = f"echo '{H100}, 81559, {{}}'"
    nvidia_smi(f'case "$*" in *--id=1*) {row.format(80000)};; *) {row.format(4)}; {row.format(80000)};; esac')
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert find_gpus(no_warning) == (Gpu(H100, 81559 * 2**20, 80000 * 2**20),)


@pytest.mark.parametrize(
    "script", [None, "exit 9", "echo 'NVIDIA-SMI has failed'", f"echo '{H100}, [N/A], [N/A]'", "printf '\\377, 1, 1'", "echo"]
)
def test_without_a_working_nvidia_smi_the_memory_is_unknown(tensorflow_lists, nvidia_smi, script):
    tensorflow_lists(H100)
    nvidia_smi(script)
    assert find_gpus(no_warning) == (Gpu(H100),)


def network(**options):
    """A GRU of one layer of 8192 units: its recurrent matrix alone has 0.8 GB, and Adam keeps two more of that size."""
    shape = {"layers": 1, "units": 8192, "embedding_dim": 16, "batch_size": 2, "sequence_length": 10}
    return make_config(**{**shape, "dropout": 0.0, "weight_drop": 0.0, **options})


def test_a_network_too_large_for_a_gpu_is_refused_with_its_name():
    with pytest.raises(CharedgeError, match=rf"`units` 8192.* need about .* GB of memory to train and {T4} has 2\.4 GB free"):
        require_memory(66, network(), [], Hardware((Gpu(T4, 16 * GIGABYTE, int(2.4 * GIGABYTE)),)))


def test_the_fullest_of_several_gpus_decides():
    fitting = Gpu(H100, 80 * GIGABYTE, 80 * GIGABYTE)
    require_memory(66, network(), [], Hardware((fitting, fitting)))
    with pytest.raises(CharedgeError, match=r"each GPU has 2\.0 GB free"):
        require_memory(66, network(), [], Hardware((fitting, Gpu(H100, 80 * GIGABYTE, 2 * GIGABYTE))))


def test_a_gpu_of_unknown_memory_refuses_nothing():
    require_memory(66, network(units=65_536), [], Hardware((Gpu(T4),)))


@pytest.mark.parametrize(
    ("hardware", "text"),
    [
        (Hardware(), "the CPU (1 thread)"),
        (Hardware(threads_per_device=8), "the CPU (8 threads)"),
        (Hardware(cpu_devices=2, threads_per_device=4), "the CPU (2 devices of 4 threads)"),
        (Hardware((Gpu(H100, 80 * GIGABYTE, 7),), threads_per_device=8), f"{H100} (80 GB)"),
        (Hardware((Gpu(T4),)), T4),
        (Hardware((Gpu(H100, 80 * GIGABYTE),) * 4), f"4 x {H100} (80 GB)"),
        (Hardware((Gpu(H100, 80 * GIGABYTE), Gpu(T4), Gpu(T4))), f"{H100} (80 GB) and 2 x {T4}"),
        (Hardware(threads_per_device=2, workers=3), "3 workers, each with the CPU (2 threads)"),
        (Hardware((Gpu(T4, 16 * GIGABYTE),), workers=2), f"2 workers, each with {T4} (16 GB)"),
    ],
)
def test_hardware_reads_as_people_say_it(hardware, text):
    assert str(hardware) == text


def test_auto_is_float32_on_a_gpu_whatever_the_cpu_multiplies(monkeypatch):
    monkeypatch.setattr(accelerators, "_cpu_has_bfloat16", lambda: True)
    assert resolve_precision("auto", [Gpu(H100)]) == "float32"
    assert resolve_precision("auto", []) == "mixed_bfloat16"
    assert resolve_precision("mixed_float16", [Gpu(H100)]) == "mixed_float16"


@pytest.mark.usefixtures("a_gpu")
def test_bfloat16_is_refused_on_a_gpu(charedge, corpus, tmp_path):
    result = charedge("train", corpus, "--output", tmp_path / "run", *TINY, "--precision", "mixed_bfloat16")
    assert (result.status, "Traceback" in result.stderr) == (2, False)
    assert "--precision mixed_bfloat16" in result.stderr
    assert "float32 or mixed_float16" in result.stderr


@pytest.mark.usefixtures("a_gpu")
def test_a_run_in_bfloat16_resumes_in_float32_on_a_gpu(charedge, train, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(train().path, run)
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps({**config, "precision": "mixed_bfloat16"}))
    resume = ("train", "--output", run, "--resume", "--epochs", "3")
    assert_one_sentence(charedge(*resume), str(run), "mixed_bfloat16", "--precision float32")
    assert_one_sentence(charedge(*resume, "--precision", "float32"), f"{H100} has 0.0 GB free")  # the next check


GRAPH_ERROR = """Graph execution error:

Detected at node charedge_1/recurrent_0_1/CudnnRNNV3 defined at (most recent call last):
  File "/home/groom/oom.py", line 6, in <module>

{}
\t [[{{{{node charedge_1/recurrent_0_1/CudnnRNNV3}}}}]] [Op:__inference_train_step_1205]"""


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (tf.errors.ResourceExhaustedError, "OOM when allocating tensor with shape[64,100,1024] and type float on GPU:0"),
        (tf.errors.InternalError, "Failed to call DoRnnForward: CUDNN_STATUS_ALLOC_FAILED"),
        (tf.errors.InternalError, "CUDA_ERROR_OUT_OF_MEMORY"),
        (tf.errors.InternalError, "Dst tensor is not initialized."),
    ],
)
def test_memory_that_ends_in_the_middle_of_a_training_is_one_sentence(charedge, corpus, tmp_path, monkeypatch, error, reason):
    def compile_train_step(*arguments):
        steps = iter(range(3))
        step = compiled(*arguments)

        def limited(*inputs):
            if next(steps, None) is None:
                raise error(None, None, GRAPH_ERROR.format(reason))
            return step(*inputs)

        return limited

    compiled = learner.compile_train_step
    monkeypatch.setattr(learner, "compile_train_step", compile_train_step)
    result = charedge("train", corpus, "--output", tmp_path / "run", *TINY)
    assert_one_sentence(result, f"the memory of this machine is not enough ({reason})", "--batch-size than 16")


def test_evaluate_and_convert_leave_the_gpus_to_others(charedge, train, tmp_path, monkeypatch):
    """TensorFlow would take all of their memory when it starts."""
    hidden = []
    monkeypatch.setattr(tf.config, "set_visible_devices", lambda devices, kind: hidden.append((devices, kind)))
    run = train().path
    commands = (
        ("evaluate", run),
        ("convert", run, "--output", tmp_path / "model.tflite"),
        ("convert", run, "--output", tmp_path / "saved", "--format", "saved-model"),
    )
    for count, command in enumerate(commands, start=1):
        assert charedge(*command).status == 0
        assert hidden == [([], "GPU")] * count
