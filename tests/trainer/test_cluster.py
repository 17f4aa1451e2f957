"""The workers of a training wait for each other, and not for ever; TF_CONFIG is checked before anything is read."""

import json
import signal
import socket

import pytest
from conftest import TINY, assert_waits, local_addresses, tf_config

MEET = "from charedge.trainer.rendezvous import wait_for_workers; wait_for_workers(120)"
LEAVE = """
import socket, sys
host, _, port = sys.argv[1].partition(":")
with socket.create_server((host, int(port))) as server:
    while server.accept()[0].recv(3) != b"PRI":  # with which TensorFlow's client begins
        pass
"""


@pytest.mark.parametrize("index", [0, 1, 2])
def test_a_worker_whose_peers_do_not_come_names_them_and_gives_up(start_worker, corpus, tmp_path, index):
    run, addresses = tmp_path / "run", local_addresses(3)
    missing = [address for address in addresses if address != addresses[index]]
    worker = start_worker(addresses, index, "train", corpus, "--output", run, *TINY, "--worker-timeout", "0.5")
    assert_waits(worker, missing)
    _, stderr = worker.communicate(timeout=180)
    assert (worker.returncode, stderr.count("\n")) == (1, 1), stderr
    assert f"no answer from {', '.join(missing)} within 0.5 seconds" in stderr
    assert "--worker-timeout" in stderr
    assert not run.exists()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_worker_that_waits(start_worker, corpus, tmp_path, number, status):
    addresses = local_addresses(2)
    worker = start_worker(addresses, 0, "train", corpus, "--output", tmp_path / "run", *TINY)
    assert_waits(worker, addresses[1:])
    worker.send_signal(number)
    _, stderr = worker.communicate(timeout=60)
    assert (worker.returncode, stderr) == (status, "")


def test_ctrl_c_ends_a_worker_whose_peer_is_lost_after_they_met(start_worker, corpus, tmp_path):
    addresses = local_addresses(2)
    worker = start_worker(addresses, 1, "train", corpus, "--output", tmp_path / "run", *TINY)
    assert_waits(worker, addresses[:1])
    lost = start_worker(addresses, 0, "-c", MEET + LEAVE, addresses[0])
    assert lost.wait(timeout=180) == 0
    worker.send_signal(signal.SIGINT)
    worker.communicate(timeout=60)
    assert worker.returncode == -signal.SIGINT  # which a shell calls 130


def test_three_workers_meet_in_any_order(start_worker):
    addresses = local_addresses(3)
    workers = [start_worker(addresses, index, "-c", MEET) for index in (2, 0, 1)]
    for worker in workers:
        _, stderr = worker.communicate(timeout=180)
        assert (worker.returncode, stderr) == (0, "")


def test_workers_with_different_tf_configs_both_report_it(start_worker):
    addresses, more = local_addresses(2), local_addresses(1)
    workers = [
        start_worker(addresses, 0, "-c", MEET),
        start_worker([*addresses, *more], 1, "-c", MEET),
    ]
    for worker, other in zip(workers, reversed(addresses), strict=True):
        _, stderr = worker.communicate(timeout=180)
        assert f"the worker at {other} was started with another TF_CONFIG" in stderr


def test_a_port_that_another_process_has_is_one_sentence(charedge, corpus, tmp_path, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        monkeypatch.setenv("TF_CONFIG", tf_config([address, *local_addresses(1)]))
        result = charedge("train", corpus, "--output", tmp_path / "run", "--preset", "small", *TINY)
    assert (result.status, result.stderr.count("\n")) == (1, 1)
    assert f"{address}, this worker's address in TF_CONFIG, cannot be used (Address already in use)" in result.stderr


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1:65536", "127.0.0.1:0", "127.0.0.1:-1", "127.0.0.1:x", "127.0.0.1:", "127.0.0.1", ":2222", "::1:2222", "[]:2222"],
)
def test_an_address_that_no_worker_can_have_is_refused_before_anything_is_read(charedge, tmp_path, monkeypatch, address):
    monkeypatch.setenv("TF_CONFIG", tf_config(["127.0.0.1:2222", address]))
    for arguments in (["train", tmp_path / "missing"], ["train", "--resume"], ["finetune", tmp_path / "missing"]):
        result = charedge(*arguments, "--output", tmp_path / "run")
        assert (result.status, result.stderr.count("\n")) == (1, 1)
        assert result.stderr.startswith("charedge: TF_CONFIG cannot be used")
        assert repr(address) in result.stderr


def test_two_workers_with_one_address_are_refused(charedge, tmp_path, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", tf_config(["127.0.0.1:2222", "127.0.0.1:2222"]))
    result = charedge("train", tmp_path / "missing", "--output", tmp_path / "run")
    assert (result.status, "same address" in result.stderr) == (1, True)


def test_jobs_that_charedge_would_not_wait_for_are_refused(charedge, tmp_path, monkeypatch):
    jobs = {"chief": ["127.0.0.1:2221"], "worker": ["127.0.0.1:2222", "127.0.0.1:2223"]}
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": jobs, "task": {"type": "worker", "index": 0}}))
    result = charedge("train", tmp_path / "missing", "--output", tmp_path / "run")
    assert (result.status, "chief" in result.stderr) == (1, True)


def test_a_single_worker_trains_alone_whatever_its_address(charedge, corpus, tmp_path, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", tf_config(["nowhere"]))
    result = charedge("train", corpus, "--output", tmp_path / "run", *TINY, "--epochs", "1")
    assert result.status == 0, result.stderr
    assert "waiting" not in result.stderr


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf"])
def test_a_worker_timeout_is_a_number_above_zero(charedge, corpus, tmp_path, seconds):
    for arguments in (["train", corpus], ["train", "--resume"], ["finetune", tmp_path]):
        result = charedge(*arguments, "--output", tmp_path / "run", "--worker-timeout", seconds)
        assert (result.status, "--worker-timeout" in result.stderr) == (2, True)
