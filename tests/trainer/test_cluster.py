"""TF_CONFIG is checked before anything is read."""

import json

import pytest
from conftest import TINY


def tf_config(addresses, index=0):
    return json.dumps({"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}})


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
