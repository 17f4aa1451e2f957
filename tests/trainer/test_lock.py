"""Two trainings into one run folder, in two real processes."""

import errno
import fcntl
import os
import socket
import subprocess
import sys

import pytest
from charedge.trainer.lock import locked

from charedge import CharedgeError

HOLD = """
import sys
from pathlib import Path
from charedge.trainer.lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the folder `run`."""
    arguments = [sys.executable, "-c", HOLD, str(tmp_path / "run")]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_second_process_is_refused_with_the_name_of_the_first(holder, tmp_path):
    with pytest.raises(CharedgeError) as refusal, locked(tmp_path / "run"):
        pass
    message = str(refusal.value)
    assert f"run is being trained by process {holder.pid} on {socket.gethostname()} since 20" in message
    assert "choose another `output`" in message


def test_a_refusal_leaves_the_lock_with_its_holder(holder, tmp_path):
    for _ in range(2):
        with pytest.raises(CharedgeError, match=str(holder.pid)), locked(tmp_path / "run"):
            pass


def test_the_folder_is_free_when_the_holder_has_ended(holder, tmp_path):
    holder.communicate()
    with locked(tmp_path / "run"):
        pass


def test_a_killed_holder_blocks_nobody(holder, tmp_path):
    holder.kill()
    holder.wait()
    assert (tmp_path / "run" / ".lock").exists()
    with locked(tmp_path / "run"):
        assert (tmp_path / "run" / ".lock").read_text().split()[0] == str(os.getpid())


def test_other_folders_are_free(holder, tmp_path):
    with locked(tmp_path / "other"):
        pass


def test_no_lock_file_or_empty_folder_is_left(tmp_path):
    with locked(tmp_path / "empty"):
        pass
    with locked(tmp_path / "full"):
        (tmp_path / "full" / "config.json").write_text("{}")
    assert [path.name for path in tmp_path.rglob("*")] == ["full", "config.json"]


def test_a_failed_training_releases_the_lock(tmp_path):
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), locked(tmp_path / "run"):
            raise ZeroDivisionError
    assert not list(tmp_path.iterdir())


def test_a_lock_that_its_holder_removed_is_not_acquired(tmp_path, monkeypatch):
    """Between the opening and the locking of the file the holder may end and remove it: a third process would make another."""
    flock, path = fcntl.flock, tmp_path / ".lock"

    def removed_before(file, operation):
        monkeypatch.setattr(fcntl, "flock", flock)
        path.unlink()
        flock(file, operation)

    monkeypatch.setattr(fcntl, "flock", removed_before)
    with locked(tmp_path):
        assert path.read_text()
        with pytest.raises(CharedgeError, match=str(os.getpid())), locked(tmp_path):
            pass


def test_training_works_on_a_file_system_without_locks(tmp_path, monkeypatch):
    def unsupported(file, operation):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", unsupported)
    with locked(tmp_path / "run"):
        assert (tmp_path / "run").is_dir()
    assert not list(tmp_path.iterdir())


def test_a_lock_without_the_name_of_its_holder_is_refused_too(tmp_path):
    with (tmp_path / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(CharedgeError, match="being trained by another process"), locked(tmp_path):
            pass


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(CharedgeError, match="cannot be written"), locked(tmp_path / "file" / "run"):
        pass
