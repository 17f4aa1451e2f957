"""Two texts in one session: the second one is refused, in another process or in the same."""

import errno
import fcntl
import json
import os
import signal
import socket

import pytest
from charedge.runtime.lock import FileLock, Held

from charedge import CharedgeError, load

ENDLESS = "100000000"


@pytest.fixture(scope="module")
def generator(model):
    return load(model.path)


@pytest.fixture
def session(tmp_path):
    folder = tmp_path / "sessions"
    folder.mkdir()
    return folder / "text"


@pytest.fixture
def lock_file(session):
    return session.with_name(".text.lock")


@pytest.fixture
def writer(model, start, session):
    """Another process that writes in the session, and waits for somebody to read more than its first character."""
    with start("generate", model.path, "--length", ENDLESS, "--seed", "7", "--session", session) as process:
        assert process.stdout.read(1)
        yield process
        process.kill()


def names(session):
    return sorted(path.name for path in session.parent.iterdir())


def test_a_second_process_is_refused_before_it_writes_anything(model, writer, process, session):
    second = process("generate", model.path, "--prompt", "Hello", "--length", "5", "--session", session)
    assert (second.returncode, second.stdout) == (1, "")
    (line,) = second.stderr.splitlines()
    assert f"--session {session} is being written by process {writer.pid} on {socket.gethostname()} since 20" in line
    assert line.endswith("wait for it, stop it, or use another --session.")


def test_the_first_process_continues_and_leaves_only_the_session(model, generator, writer, process, session):
    assert process("generate", model.path, "--length", "5", "--session", session).returncode == 1
    writer.send_signal(signal.SIGINT)
    rest, _ = writer.communicate()
    assert writer.returncode == 130
    assert names(session) == ["text"]
    assert generator.generate("", 20, session=session) in generator.generate("", len(rest) + 10_000, seed=7)


def test_the_session_is_locked_while_the_prompt_is_still_read(model, start, process, session):
    arguments = ["--prompt-file", "-", "--length", "1", "--session", session]
    with start("generate", model.path, *arguments, stdin=-1) as first:
        first.stdin.write(b"A prompt of many lines.\n" * 1000)
        first.stdin.flush()
        assert first.stdout.read(1) == b"A"
        assert process("generate", model.path, "--length", "5", "--session", session).returncode == 1
        _, errors = first.communicate()
        assert (first.returncode, errors) == (0, b"")


def test_a_killed_process_blocks_nobody(writer, generator, session):
    writer.kill()
    writer.wait()
    assert names(session) == [".text.lock"]
    generator.generate("", 5, session=session)
    assert names(session) == ["text"]


def test_a_pipe_that_is_closed_leaves_nothing(writer, session):
    """Not even a session: how much its reader got is unknown."""
    writer.stdout.close()
    assert writer.wait() == 0
    assert names(session) == []


@pytest.mark.parametrize("started", [True, False], ids=["started", "not started"])
def test_a_second_text_in_the_same_process_is_refused_until_the_first_is_left(generator, session, started):
    first = generator.stream("A", session=session)
    if started:
        next(first)
    for call in (generator.stream, generator.generate):
        with pytest.raises(CharedgeError, match=f"is being written by process {os.getpid()} on"):
            call("B", 5, session=session)
    first.close()
    generator.generate("B", 5, session=session)
    assert names(session) == ["text"]


@pytest.mark.parametrize("pieces", [0, 1, 3])
def test_a_stream_that_is_dropped_frees_its_session(generator, session, pieces):
    stream = generator.stream("A", session=session)
    for _ in range(pieces):
        next(stream)
    del stream
    generator.generate("", 5, session=session)
    assert names(session) == ["text"]


def test_other_sessions_are_free(generator, session):
    stream = generator.stream("A", session=session)
    next(stream)
    assert len(generator.generate("A", 5, session=session.with_name("other"))) == 5


def test_a_session_that_is_refused_is_not_kept_locked(generator, session):
    session.write_bytes(b"{}")
    with pytest.raises(CharedgeError, match="is not a session"):
        generator.stream("A", session=session)
    assert names(session) == ["text"]
    session.unlink()
    with pytest.raises(CharedgeError, match="does not know"):
        generator.generate(iter("é"), 5, session=session, strict=True)
    assert names(session) == []


@pytest.mark.parametrize("content", ["mine", "1 host 2026", "12 raspberrypi 2026-01-02T03:04:05+00:00\nand more", "\0" * 60])
def test_a_file_that_is_not_a_locks_is_left_as_it_is(generator, session, lock_file, content):
    """A power cut may leave such a file, too: it can be locked like any other."""
    lock_file.write_text(content)
    stream = generator.stream("A", session=session)
    with pytest.raises(CharedgeError, match="is being written by another process"):
        generator.stream("A", session=session)
    stream.close()
    assert lock_file.read_text() == content
    assert len(generator.generate("A", 5, session=session)) == 5


@pytest.mark.parametrize(
    "make", [lambda path, other: path.symlink_to(other), lambda path, _: path.mkdir(), lambda path, _: os.mkfifo(path)]
)
def test_a_link_or_a_folder_in_the_locks_place_is_an_error(charedge, model, session, lock_file, make):
    other = session.with_name("other")
    other.write_text("mine")
    make(lock_file, other)
    result = charedge("generate", model.path, "--length", "5", "--session", session)
    assert (result.status, result.stdout) == (1, "")
    assert ".text.lock is not a regular file" in result.stderr
    assert other.read_text() == "mine"
    assert lock_file.is_symlink() or lock_file.exists()


def test_a_link_that_leads_nowhere_is_not_followed(generator, session, lock_file):
    lock_file.symlink_to(session.with_name("nowhere"))
    with pytest.raises(CharedgeError, match="not a regular file"):
        generator.stream("A", session=session)
    assert names(session) == [".text.lock"]


def test_leftovers_of_another_users_killed_process_block_nobody(generator, session, lock_file, monkeypatch):
    lock_file.write_text("12 raspberrypi 2026-01-02T03:04:05+00:00\n")
    opened = os.open

    def readable(path, flags, *mode, **folder):
        if flags & os.O_RDWR and path.exists():
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return opened(path, flags, *mode, **folder)

    monkeypatch.setattr("os.open", readable)
    generator.generate("A", 5, session=session)
    assert names(session) == ["text"]


def test_a_file_system_without_locks_blocks_nobody(generator, session, monkeypatch):
    def unsupported(file, operation):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", unsupported)
    text = generator.generate("A", 5, seed=7, session=session) + generator.generate("", 5, session=session)
    assert text == generator.generate("A", 10, seed=7)
    assert names(session) == ["text"]


def test_a_folder_that_is_read_only_is_one_sentence_before_any_text(generator, charedge, model, session, monkeypatch):
    generator.generate("A", 5, session=session)
    opened = os.open

    def read_only(path, flags, *mode, **folder):
        if flags & os.O_CREAT:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return opened(path, flags, *mode, **folder)

    monkeypatch.setattr("os.open", read_only)
    result = charedge("generate", model.path, "--prompt", "Hello", "--session", session)
    assert (result.status, result.stdout) == (1, "")
    assert result.stderr == f"charedge: --session {session} cannot be written (Read-only file system): choose another place.\n"


def test_a_lock_whose_file_was_removed_does_not_remove_the_next_ones(tmp_path):
    path = tmp_path / "lock"
    first = FileLock(path)
    path.unlink()
    second = FileLock(path)
    first.release()
    with pytest.raises(Held, match=str(os.getpid())):
        FileLock(path)
    second.release()
    assert not path.exists()


def test_the_session_of_a_refused_text_is_not_changed(generator, session):
    generator.generate("A", 5, session=session)
    saved = session.read_bytes()
    stream = generator.stream("", session=session)
    with pytest.raises(CharedgeError, match="is being written"):
        generator.generate("B", 5, session=session)
    assert json.loads(session.read_bytes()) == json.loads(saved)
    stream.close()
