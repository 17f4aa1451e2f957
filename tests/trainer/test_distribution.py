"""Several devices and several processes train what one does."""

import csv
import signal

import numpy as np
import pytest
from conftest import TINY, assert_waits, local_addresses

OPTIONS = (*TINY, "--weight-drop", "0.1", "--clip-norm", "0.5", "--average", "0.9")


@pytest.fixture
def start_workers(start_worker):
    """Start `charedge train` as two workers on this machine."""

    def call(*arguments):
        addresses = local_addresses(2)
        return [start_worker(addresses, index, "train", *arguments) for index in range(2)]

    return call


def finish(workers):
    outputs = [worker.communicate(timeout=180) for worker in workers]
    return [worker.returncode for worker in workers], [stderr for _, stderr in outputs]


def losses(run):
    with (run / "history.csv").open() as file:
        return [
            (float(row["train_nats_per_character"]), float(row["validation_nats_per_character"])) for row in csv.DictReader(file)
        ]


def weights(run):
    with np.load(sorted((run / "checkpoints").iterdir())[-1]) as content:
        return [content[key] for key in content if key.isdecimal()]


def assert_same_training(found, expected):
    np.testing.assert_allclose(losses(found), losses(expected), atol=1e-4)
    for a, b in zip(weights(found), weights(expected), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4, rtol=1e-3)


def test_two_workers_train_what_one_does(train, start_workers, corpus, tmp_path):
    run = tmp_path / "run"
    status, stderr = finish(start_workers(corpus, "--output", run, *OPTIONS))
    assert status == [0, 0], stderr
    assert "on 2 workers, each with the CPU" in stderr[0]
    assert "epoch" not in stderr[1]  # one of them speaks
    assert_same_training(run, train(*OPTIONS).path)


@pytest.mark.slow
def test_a_late_worker_and_one_that_was_started_again_train_what_one_does(train, start_worker, corpus, tmp_path):
    run, addresses = tmp_path / "run", local_addresses(2)
    arguments = ("train", corpus, "--output", run, *OPTIONS)
    early = start_worker(addresses, 1, *arguments)
    assert_waits(early, addresses[:1])
    killed = start_worker(addresses, 0, *arguments)
    assert_waits(killed, addresses[1:])
    killed.kill()
    killed.wait()
    late = start_worker(addresses, 0, *arguments)
    status, stderr = finish([late, early])
    assert status == [0, 0], stderr
    assert_same_training(run, train(*OPTIONS).path)


@pytest.mark.slow
def test_a_signal_to_one_worker_stops_both_and_both_can_resume(train, start_workers, corpus, tmp_path):
    run = tmp_path / "run"
    workers = start_workers(corpus, "--output", run, *OPTIONS)
    assert any("untrained" in line for line in workers[0].stderr)
    workers[1].send_signal(signal.SIGTERM)
    status, stderr = finish(workers)
    assert status == [143, 143], stderr
    assert "--resume" in stderr[0]
    status, stderr = finish(start_workers("--output", run, "--resume"))
    assert status == [0, 0], stderr
    assert_same_training(run, train(*OPTIONS).path)


@pytest.mark.slow
def test_a_killed_worker_ends_the_other_and_both_can_resume(train, start_workers, corpus, tmp_path):
    run = tmp_path / "run"
    workers = start_workers(corpus, "--output", run, *OPTIONS)
    assert any("epoch 1/2" in line for line in workers[0].stderr)
    workers[1].kill()
    status, stderr = finish(workers)
    assert status[0] == 1, stderr
    assert "Traceback" not in stderr[0]
    assert "start all of them again with --resume" in stderr[0]
    status, stderr = finish(start_workers("--output", run, "--resume"))
    assert status == [0, 0], stderr
    assert_same_training(run, train(*OPTIONS).path)


@pytest.mark.parametrize(
    "config",
    [
        "{",
        "[]",
        '{"cluster": {"worker": ["a:1", "b:2"]}}',
        '{"cluster": {"worker": ["a:1", "b:2"]}, "task": {"type": "worker", "index": 7}}',
    ],
)
def test_a_wrong_tf_config_is_one_sentence(charedge, corpus, tmp_path, monkeypatch, config):
    monkeypatch.setenv("TF_CONFIG", config)
    result = charedge("train", corpus, "--output", tmp_path / "run", *TINY)
    assert (result.status, "TF_CONFIG" in result.stderr, "Traceback" in result.stderr) == (1, True, False)
