"""What may be given as --session: a session, a free name, and everything else, which is refused in a sentence and left as it is."""

import base64
import hashlib
import json
import math
import os
import random
import resource

import numpy as np
import pytest

from charedge import CharedgeError, load


@pytest.fixture(scope="module")
def generator(model):
    return load(model.path)


@pytest.fixture
def session(tmp_path):
    return tmp_path / "s"


@pytest.fixture
def saved(generator, session):
    """The content of a session."""
    generator.generate("Hello\n", 20, seed=7, session=session)
    return session.read_bytes()


def fifo(path):
    os.mkfifo(path)


def link_to_a_device(path):
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("make", [fifo, link_to_a_device, os.mkdir])
def test_what_is_not_a_regular_file_is_refused_at_once(process, model, session, make):
    make(session)
    result = process("generate", model.path, "--length", "5", "--session", session, timeout=60)
    assert (result.returncode, result.stdout) == (1, "")
    assert f"--session {session} is " in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert [path.name for path in session.parent.iterdir()] == ["s"]


@pytest.mark.parametrize("name", ["/dev/null", "/dev/stdin", "", ".", "..", "/"])
def test_names_that_are_never_a_file_are_refused(charedge, model, name, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    result = charedge("generate", model.path, "--length", "5", "--session", name)
    assert (result.status, result.stdout) == (1, "")
    assert result.stderr.startswith("charedge: --session ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("length", range(240, 258))
def test_a_name_that_is_too_long_is_refused_before_the_text(charedge, model, tmp_path, length):
    """Beside the session there are two files with longer names."""
    result = charedge("generate", model.path, "--length", "5", "--session", tmp_path / ("s" * length))
    assert (result.status, len(result.stdout)) in [(0, 5), (1, 0)]
    assert ("cannot be written (File name too long)" in result.stderr) == (result.status == 1)
    assert len(list(tmp_path.iterdir())) == (result.status == 0)


def test_a_session_that_does_not_fit_on_the_disk_is_refused_before_the_text(process, model, session):
    limit = {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))}  # stdout is a pipe
    result = process("generate", model.path, "--length", "5", "--session", session, **limit)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == f"charedge: --session {session} cannot be written (File too large): choose another place.\n"
    assert list(session.parent.iterdir()) == []


def test_a_file_that_is_not_a_session_is_never_called_damaged(charedge, model, session):
    for content in (model.path.read_bytes(), b"", b"My notes.\n", b"{}", b"[]", b'{"a": 1}', b"\xff" * 50, b"[" * 100_000):
        session.write_bytes(content)
        result = charedge("generate", model.path, "--length", "5", "--session", session)
        assert (result.status, result.stdout) == (1, "")
        assert result.stderr == f"charedge: --session {session} is not a session: choose another name for the session's file.\n"
        assert session.read_bytes() == content


def resumed(generator, session):
    """The text that continues, or the sentence of the error."""
    try:
        return generator.generate("", 3, session=session)
    except CharedgeError as error:
        return error


def test_a_session_that_was_truncated_anywhere_is_refused_and_kept(generator, session, saved):
    for size in range(len(saved)):
        session.write_bytes(saved[:size])
        error = resumed(generator, session)
        assert isinstance(error, CharedgeError), size
        assert "is not a session" in str(error) if size < 18 else "is damaged: delete it to start a new text." in str(error)
        assert session.read_bytes() == saved[:size]


def test_a_session_with_one_other_byte_is_refused_or_means_the_same(generator, session, saved):
    expected, same, moments = resumed(generator, session), 0, random.Random(1)
    for place in range(len(saved)):
        edits = {moments.randrange(256), moments.choice(b' \t\n"0189{}[],:.-eN\\'), saved[place] ^ 1 << moments.randrange(8)}
        for byte in edits - {saved[place]}:
            edited = saved[:place] + bytes([byte]) + saved[place + 1 :]
            session.write_bytes(edited)
            result = resumed(generator, session)
            if isinstance(result, CharedgeError):
                assert session.read_bytes() == edited
            else:
                assert result == expected
                assert byte in b"\t\n\r "
                same += 1
    assert same  # a line feed for a space


PCG = {"bit_generator": "PCG64", "state": {"state": 1, "inc": 3}, "has_uint32": 0, "uinteger": 0}
HUGE = 10**4000


def floats(*values):
    return base64.b64encode(np.array(values, np.float32).tobytes()).decode()


def positioned(step, **random):
    return {"position": {"random": {**PCG, **random}, "step": step}}


FORGED = [
    {"token": -1},
    {"token": 10**6},
    {"token": HUGE},
    {"token": True},
    {"token": 1.0},
    {"token": "1"},
    {"token": None},
    {"token": math.nan},
    {"token": [1]},
    {"tail": None},
    {"tail": 5},
    {"tail": ["a"]},
    {"tail": "a" * 10_000_000},
    {"state": None},
    {"state": ""},
    {"state": "not base64!"},
    {"state": "é"},
    {"state": [0.0] * 24},
    {"state": floats(*[0.0] * 23)},
    {"state": floats(*[0.0] * 25)},
    {"state": floats(*[0.0] * 48)},
    {"state": floats(math.nan, *[0.0] * 23)},
    {"state": floats(*[0.0] * 23, -math.inf)},
    {"position": None},
    {"position": []},
    {"position": {}},
    {"position": {"random": PCG}},
    {"position": {"random": PCG, "step": 1, "more": 1}},
    positioned(-1),
    positioned(65),
    positioned(HUGE),
    positioned(1.5),
    positioned(True),
    positioned("1"),
    positioned(1, bit_generator="MT19937"),
    positioned(1, bit_generator=None),
    positioned(1, state=None),
    positioned(1, state={"state": 1}),
    positioned(1, state={"state": -1, "inc": 3}),
    positioned(1, state={"state": 1 << 128, "inc": 3}),
    positioned(1, state={"state": HUGE, "inc": 3}),
    positioned(1, state={"state": 1.5, "inc": 3}),
    positioned(1, has_uint32=HUGE),
    positioned(1, uinteger=-1),
    positioned(1, uinteger=1 << 32),
    {"more": 1},
    {"model_sha256": None},
    {"format_version": 2},
    {"format_version": None},
    {"format_version": HUGE},
]


def sign(body):
    """A body as `Session.save` writes it, with the right digest, whatever is in it."""
    digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
    return json.dumps({**body, "sha256": digest}).encode()


@pytest.fixture
def body(saved):
    return {key: value for key, value in json.loads(saved).items() if key != "sha256"}


@pytest.mark.parametrize("fields", FORGED, ids=lambda fields: repr(fields)[:60])
def test_a_session_of_wrong_values_is_refused_though_its_digest_is_right(charedge, model, session, body, fields):
    forged = sign({**body, **fields})
    session.write_bytes(forged)
    result = charedge("generate", model.path, "--length", "5", "--session", session)
    assert (result.status, result.stdout) == (1, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"charedge: --session {session} ")
    assert ("delete" in line) == ("is damaged" in line)
    assert session.read_bytes() == forged


@pytest.mark.parametrize("missing", ["token", "tail", "state", "position", "format_version"])
def test_a_session_without_a_field_is_refused(generator, session, body, missing):
    session.write_bytes(sign({key: value for key, value in body.items() if key != missing}))
    assert "is damaged" in str(resumed(generator, session))


@pytest.mark.parametrize("fields", [{}, {"tail": ""}, {"tail": "\ud800é漢"}, positioned(64), {"tail": "a" * 1024}], ids=repr)
def test_the_forged_sessions_are_refused_for_nothing_else(generator, session, body, fields):
    session.write_bytes(sign({**body, **fields}))
    assert len(generator.generate("", 5, repetition_penalty=1.5, session=session)) == 5


def test_a_session_of_gigabytes_is_not_read_as_a_whole(process, model, session, saved):
    with session.open("r+b") as file:
        file.truncate(1 << 33)
    limit = {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_AS, (1 << 32, 1 << 32))}
    result = process("generate", model.path, "--length", "5", "--session", session, **limit)
    assert (result.returncode, result.stdout) == (1, "")
    assert "is damaged" in result.stderr
