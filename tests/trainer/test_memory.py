"""The memory that a training needs and the memory that is available, without allocating any."""

import resource
import sys

import pytest
from charedge.trainer import memory
from charedge.trainer.accelerators import Hardware
from charedge.trainer.memory import available_bytes, require_memory, training_bytes
from configs import make_config

from charedge import CharedgeError

MEGABYTE = 2**20


def training(vocabulary_size=66, **options):
    """What the estimate is of: a vocabulary's size and a configuration, a GRU of 512 but for some options."""
    return vocabulary_size, make_config(**{"layers": 1, "units": 512, **options})


@pytest.mark.parametrize(
    ("measured", "options"),
    [
        (640, {"units": 32, "embedding_dim": 16, "batch_size": 16, "sequence_length": 50}),
        (819, {}),
        (1620, {"units": 256, "embedding_dim": 16, "batch_size": 256, "sequence_length": 200}),
        (2177, {"cell": "lstm", "layers": 2, "units": 256, "embedding_dim": 128, "batch_size": 512}),
        (2213, {"units": 3072, "embedding_dim": 16, "batch_size": 2, "sequence_length": 10}),
        (1565, {"units": 2048, "embedding_dim": 16, "batch_size": 2, "sequence_length": 60, "average": 0.999}),
        (1211, {"cell": "lstm", "layers": 2, "units": 1024, "embedding_dim": 16, "batch_size": 2, "sequence_length": 60}),
        (1430, {"vocabulary_size": 3001, "units": 32, "embedding_dim": 16, "batch_size": 256, "sequence_length": 200}),
    ],
)
def test_the_estimate_is_near_the_measured_peak(measured, options):
    """MiB: the largest resident set of a `charedge train --precision float32` of this size on a CPU."""
    assert measured / 1.5 < training_bytes(*training(**options)) / MEGABYTE < measured * 1.5


@pytest.mark.parametrize(
    "more",
    [
        {"cell": "lstm"},
        {"layers": 2},
        {"units": 513},
        {"embedding_dim": 257},
        {"batch_size": 65},
        {"sequence_length": 101},
        {"vocabulary_size": 67},
        {"average": 0.999},
    ],
)
def test_larger_values_are_estimated_to_need_more_memory(more):
    assert training_bytes(*training(**more)) > training_bytes(*training())


def test_teachers_are_estimated_to_need_more_memory():
    vocabulary_size, config = training()
    assert training_bytes(vocabulary_size, config, [config]) > training_bytes(vocabulary_size, config) + 4 * 2 * 800_000


def test_devices_of_the_cpu_each_take_the_weights_and_share_the_batch():
    one, two, three = (training_bytes(*training(units=2048, batch_size=16), replicas=count) for count in (1, 2, 3))
    assert two - one == three - two > 4 * 4 * 3 * 2048 * 2048


def test_a_training_that_does_not_fit_is_refused_with_needed_and_available_memory(monkeypatch):
    monkeypatch.setattr(memory, "available_bytes", lambda: 20 * 10**9)
    needed = training_bytes(*training(units=65_536))
    with pytest.raises(CharedgeError) as refusal:
        require_memory(*training(units=65_536), [], Hardware())
    message = str(refusal.value)
    assert message.startswith("`units` 65536, `batch_size` 64 and `sequence_length` 100 need about ")
    assert f"about {needed / 1e9:,.0f} GB of memory to train and this machine has 20 GB free" in message
    assert message.endswith("choose fewer `units`, a smaller `batch_size` or `sequence_length`.")


def test_a_training_that_fits_is_let_through(monkeypatch):
    monkeypatch.setattr(memory, "available_bytes", lambda: training_bytes(*training()))
    require_memory(*training(), [], Hardware())


def test_little_memory_is_reported_to_one_decimal(monkeypatch):
    monkeypatch.setattr(memory, "available_bytes", lambda: 512 * 10**6)
    with pytest.raises(CharedgeError, match=r"has 0\.5 GB free"):
        require_memory(*training(), [], Hardware())


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A function that lays out files under `proc` and `cgroups`, and returns what is available according to them."""
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

    def available(files):
        for name, content in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        return available_bytes(tmp_path / "proc", tmp_path / "cgroups")

    return available


MEMINFO = {"proc/meminfo": "MemTotal:       8000000 kB\nMemFree: 1 kB\nMemAvailable:   6000000 kB\n"}
CONTAINER = {"proc/self/cgroup": "0::/user/job\n"}


def test_available_memory_is_read_from_the_system(machine):
    assert machine(MEMINFO) == 6_000_000 * 1024


def test_unknown_memory_is_no_limit(machine):
    assert machine({}) == sys.maxsize


def test_a_container_leaves_its_limit_minus_used_memory(machine):
    group = {"memory.max": "1000000\n", "memory.current": "300000\n", "memory.stat": "anon 1\ninactive_file 100000\n"}
    files = {f"cgroups/user/job/{name}": content for name, content in group.items()}
    assert machine({**MEMINFO, **CONTAINER, **files}) == 800_000


def test_the_tightest_of_the_groups_around_it_counts(machine):
    files = {
        "cgroups/user/job/memory.max": "max\n",
        "cgroups/user/job/memory.current": "10\n",
        "cgroups/user/memory.max": "500\n",
        "cgroups/user/memory.current": "200\n",
    }
    assert machine({**MEMINFO, **CONTAINER, **files}) == 300


def test_the_first_version_of_control_groups_is_read_too(machine):
    files = {
        "proc/self/cgroup": "9:name=systemd:/\n4:cpu,memory:/docker/1234\n",
        "cgroups/memory/memory.limit_in_bytes": "4000\n",  # seen from inside: the path is the host's
        "cgroups/memory/memory.usage_in_bytes": "1000\n",
        "cgroups/memory/memory.stat": "inactive_file 1\ntotal_inactive_file 500\n",
    }
    assert machine({**MEMINFO, **files}) == 3_500


def test_a_full_container_leaves_no_memory(machine):
    files = {"cgroups/user/job/memory.max": "100\n", "cgroups/user/job/memory.current": "200\n"}
    assert machine({**CONTAINER, **files}) == 0


def test_the_process_own_limit_counts(machine, monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (10**9, 10**9))
    files = {**MEMINFO, "proc/self/statm": "1000 500 0 0 0 0 0\n"}
    assert machine(files) == 10**9 - 1000 * resource.getpagesize()


def test_this_machine_has_free_memory():
    assert 0 < available_bytes() <= sys.maxsize
