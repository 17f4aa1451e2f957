"""Files that are whole or not there: what is written beside them, and what is removed there."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
import threading

import pytest
from charedge.runtime.files import partial_folder, replacing, write_atomically

KILLED = """
import os, signal, sys
from pathlib import Path
from charedge.runtime.files import partial_folder, replacing

with partial_folder(Path(sys.argv[1])) as folder, replacing(Path(sys.argv[1]) / "file") as file:
    (folder / "part").mkdir()
    file.write(b"half")
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""
USERS = [
    *(
        ".file.20231224",
        ".file.1",
        ".file.0",
        ".file.00099",
        ".file.tmp",
        ".file.partial",
        ".partial.file",
        ".file.swp",
        ".file.lock",
    ),
    *(".charedge", ".charedge-1.partial", ".charedge-notes.partial", ".file.charedge-0123456789abcdef.partial", "file.partial"),
]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_files_that_a_user_made_beside_an_output_stay(tmp_path):
    for name in USERS:
        (tmp_path / name).write_text(name)
    (tmp_path / ".file.4194303").mkdir()
    write_atomically(tmp_path / "file", b"content")
    with partial_folder(tmp_path):
        pass
    assert names(tmp_path) == sorted([*USERS, ".file.4194303", "file"])
    assert all((tmp_path / name).read_text() == name for name in USERS)


def test_what_a_killed_process_left_is_removed_by_the_next_write(tmp_path):
    killed = subprocess.run([sys.executable, "-c", KILLED, tmp_path], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert [(path.name[:10], path.is_dir()) for path in tmp_path.iterdir()] in (
        [(".charedge-", True), (".charedge-", False)],
        [(".charedge-", False), (".charedge-", True)],
    )
    write_atomically(tmp_path / "other", b"content")
    assert names(tmp_path) == ["other"]


def test_what_is_still_being_written_is_not_removed_by_another_write(tmp_path):
    with partial_folder(tmp_path) as folder, replacing(tmp_path / "file") as file:
        (folder / "part").write_text("part")
        file.write(b"slow")
        command = "import sys; from pathlib import Path; from charedge.runtime.files import write_atomically as write;"
        subprocess.run([sys.executable, "-c", f"{command} write(Path(sys.argv[1]), b'fast')", tmp_path / "file"], check=True)
        assert ((tmp_path / "file").read_bytes(), (folder / "part").read_text()) == (b"fast", "part")
    assert (names(tmp_path), (tmp_path / "file").read_bytes()) == (["file"], b"slow")


def test_many_writers_in_one_folder_lose_nothing(tmp_path):
    """Each write removes leftovers, also in the moment between the creation of another one's file and its lock."""
    failures = []

    def write(number):
        try:
            for i in range(60):
                write_atomically(tmp_path / f"file{number}", f"{i}".encode())
                with partial_folder(tmp_path) as folder:
                    (folder / "part").touch()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {f"file{number}": "59" for number in range(6)}


def test_a_name_may_be_as_long_as_the_file_system_allows(tmp_path):
    write_atomically(tmp_path / ("n" * 255), b"content")
    assert names(tmp_path) == ["n" * 255]


def test_a_link_at_the_destination_is_replaced_and_its_target_stays(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    (tmp_path / "file").symlink_to("thesis.txt")
    (tmp_path / f".charedge-{'0' * 16}.partial").symlink_to("thesis.txt")
    write_atomically(tmp_path / "file", b"content")
    assert ((tmp_path / "file").read_bytes(), (tmp_path / "file").is_symlink()) == (b"content", False)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_a_file_system_without_locks_is_written_and_nothing_is_removed_there(tmp_path, monkeypatch):
    def unsupported(file, operation):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", unsupported)
    with partial_folder(tmp_path) as folder, replacing(tmp_path / "file") as file:
        file.write(b"slow")
        write_atomically(tmp_path / "file", b"fast")
        assert folder.is_dir()
    assert (names(tmp_path), (tmp_path / "file").read_bytes()) == (["file"], b"slow")


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path, error):
    write_atomically(tmp_path / "file", b"old")

    def fail():
        with replacing(tmp_path / "file") as file:
            file.write(b"new")
            raise error

    with pytest.raises(error):
        fail()
    assert (names(tmp_path), (tmp_path / "file").read_bytes()) == (["file"], b"old")
