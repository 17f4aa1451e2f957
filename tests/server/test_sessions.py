"""Sessions over HTTP: they continue where the text stood, in the files of `charedge generate`, and only complete texts count."""

import json
import os
import threading
from contextlib import closing

import pytest
from http_server import serving

PROMPT = "Once "


def say(client, name, prompt="", **fields):
    """Continue a session by twenty characters."""
    return client.texts(session=name, prompt=prompt, max_tokens=20, **fields)[0]


class CommandLine:
    """`charedge generate` in a session's file: `cli(prompt, *options)`."""

    def __init__(self, charedge, model, path):
        self.charedge, self.model, self.path = charedge, model, path

    def __call__(self, prompt, *options, path=None):
        arguments = ("--session", path or self.path, "--prompt", prompt, "--length", 20, "--no-echo", *options)
        result = self.charedge("generate", self.model.path, *arguments)
        assert result.status == 0, result.stderr
        return result.stdout


@pytest.fixture
def cli(charedge, model, tmp_path):
    return CommandLine(charedge, model, tmp_path / "cli.session")


@pytest.mark.parametrize("adapt", [False, True])
def test_a_session_is_the_one_that_charedge_generate_keeps(client, cli, adapt):
    name, fields, options = f"same-{adapt}", {"adapt": adapt}, ("--adapt",) if adapt else ()
    assert say(client, name, PROMPT, seed=3, **fields) == cli(PROMPT, "--seed", 3, *options)
    assert say(client, name, " and ") == cli(" and ")
    assert client.streamed(session=name, max_tokens=20, prompt="") == [cli("")]
    assert client.get(f"/v1/sessions/{name}/file").body == cli.path.read_bytes()


def test_a_restarted_server_and_the_command_line_continue_a_session(model, cli, tmp_path):
    folder = tmp_path / "sessions"
    with serving(model.path, sessions=folder) as client:
        first = say(client, "text", PROMPT, seed=3)
    with serving(model.path, sessions=folder) as client:
        second = say(client, "text", "and ")
    third = cli("so ", path=folder / "text.session")
    with serving(model.path, sessions=folder) as client:
        fourth = say(client, "text")
    assert [first, second, third, fourth] == [cli(PROMPT, "--seed", 3), cli("and "), cli("so "), cli("")]


def test_a_stop_string_and_a_pattern_end_a_session_where_charedge_generate_ends_it(client, cli):
    pytest.importorskip("regex")
    assert say(client, "ends", PROMPT, seed=1, stop="e") == cli(PROMPT, "--seed", 1, "--stop", "e")
    assert say(client, "ends", pattern="[A-Z][a-z]{2,5}") == cli("", "--pattern", "[A-Z][a-z]{2,5}")
    assert say(client, "ends") == cli("")


def test_a_request_that_fails_leaves_the_session_as_it_was(client):
    pytest.importorskip("regex")
    say(client, "safe", PROMPT, seed=1)
    before = client.get("/v1/sessions/safe/file").body
    assert client.complete(session="safe", pattern="[a-z]{50}", max_tokens=5).status == 422
    assert client.complete(session="safe", temperature=-1).status == 422
    assert client.get("/v1/sessions/safe/file").body == before
    assert client.complete(session="unborn", pattern="[a-z]{50}", max_tokens=5).status == 422
    assert client.get("/v1/sessions/unborn").status == 404
    assert say(client, "safe")


def test_one_request_at_a_time_continues_a_session(model, tmp_path, monkeypatch):
    """The second one is refused while the first is saved."""
    from charedge.runtime.session import Session

    saving, go, save = threading.Event(), threading.Event(), Session.save

    def save_slowly(self, path):
        saving.set()
        go.wait()
        save(self, path)

    with serving(model.path, sessions=tmp_path) as client:
        monkeypatch.setattr(Session, "save", save_slowly)
        first = threading.Thread(target=lambda: say(client, "one", PROMPT))
        first.start()
        saving.wait()
        for reply in (client.complete(session="one"), client.ask("DELETE", "/v1/sessions/one")):
            assert (reply.status, reply.error["code"]) == (409, "session_busy")
        go.set()
        first.join()
        assert say(client, "one")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["one.session"]


def test_a_session_is_shown_listed_and_deleted(model, tmp_path):
    with serving(model.path, sessions=tmp_path) as client:
        text = say(client, "b", PROMPT) and say(client, "a", PROMPT)
        listed = client.get("/v1/sessions").json["data"]
        assert [entry["name"] for entry in listed] == ["a", "b"]
        shown = client.get("/v1/sessions/a").json
        assert shown == {**listed[0], "text": PROMPT + text}
        assert (shown["model"], shown["bytes"]) == (model.path.stem, (tmp_path / "a.session").stat().st_size)
        assert client.ask("DELETE", "/v1/sessions/a").status == 204
        assert [entry["name"] for entry in client.get("/v1/sessions").json["data"]] == ["b"]
        for reply in (client.get("/v1/sessions/a"), client.ask("DELETE", "/v1/sessions/a"), client.get("/v1/sessions/a/file")):
            assert (reply.status, reply.error["code"]) == (404, "session_not_found")


def test_a_session_is_forked(client):
    say(client, "stem", PROMPT, seed=1)
    reply = client.ask("POST", "/v1/sessions/stem/fork", {"to": "branch"})
    assert (reply.status, reply.json["name"]) == (201, "branch")
    assert say(client, "branch") == say(client, "stem")
    assert say(client, "branch", "other ") != say(client, "stem", "words ")
    for name, body, status, code in (
        ("stem", {"to": "branch"}, 409, "session_exists"),
        ("stem", {"to": "../up"}, 422, "invalid_value"),
        ("stem", {}, 422, "missing_field"),
        ("nobody", {"to": "new"}, 404, "session_not_found"),
    ):
        reply = client.ask("POST", f"/v1/sessions/{name}/fork", body)
        assert (reply.status, reply.error["code"]) == (status, code)


def test_a_session_is_saved_elsewhere_and_restored(client):
    say(client, "kept", PROMPT, seed=1)
    copy = client.get("/v1/sessions/kept/file")
    assert copy.headers["content-disposition"] == 'attachment; filename="kept.session"'
    later = say(client, "kept")
    assert client.ask("PUT", "/v1/sessions/kept/file", copy.body).status == 200
    assert client.ask("PUT", "/v1/sessions/anew/file", copy.body).json["name"] == "anew"
    assert say(client, "kept") == say(client, "anew") == later


def test_what_is_not_a_session_is_not_stored(client, models, tmp_path):
    say(client, "mine", PROMPT, seed=1)
    whole = client.get("/v1/sessions/mine/file").body
    with serving(models().path, sessions=tmp_path) as other:
        say(other, "theirs")
        foreign = other.get("/v1/sessions/theirs/file").body
    changed = json.loads(whole)
    changed["token"] = 10**6
    damaged = [b"", b"{}", b"nonsense", whole[:-20], whole.replace(b'"step"', b'"stop"'), json.dumps(changed).encode(), foreign]
    for content in damaged:
        for name in ("mine", "never-made"):
            reply = client.ask("PUT", f"/v1/sessions/{name}/file", content)
            assert reply.status == 422
            assert "/" not in reply.error["message"].replace("`", "")
    assert client.ask("PUT", "/v1/sessions/mine/file", whole + b" " * 1_000_000).status == 413
    assert client.get("/v1/sessions/mine/file").body == whole
    assert client.get("/v1/sessions/never-made").status == 404


def test_a_session_of_another_model_or_a_damaged_one_is_refused_and_kept(models, model, tmp_path):
    with serving(models().path, model.path, sessions=tmp_path) as client:
        client.texts(session="one", model=model.path.stem, max_tokens=5)
        content = (tmp_path / "one.session").read_bytes()
        reply = client.complete(session="one", model=models().path.stem)
        assert (reply.status, reply.error["code"]) == (409, "session_unusable")
        assert "'one' was written with another model" in reply.error["message"]
        (tmp_path / "one.session").write_bytes(content[:-9])
        reply = client.complete(session="one", model=model.path.stem)
        assert (reply.status, str(tmp_path) in reply.error["message"]) == (409, False)
        assert (tmp_path / "one.session").read_bytes() == content[:-9]
        assert client.get("/v1/sessions").json["data"][0]["model"] == model.path.stem


def test_a_new_session_counts_once_while_it_is_saved(model, tmp_path):
    with serving(model.path, sessions=tmp_path, max_sessions=3) as client:
        say(client, "kept", PROMPT)
        (served,), store = client.service.models.values(), client.service.sessions
        with closing(store.open("kept", served.model)) as kept, closing(store.open("first", served.model)) as first:
            first.save(kept.before)
            assert say(client, "second")
            assert client.complete(session="third").error["code"] == "too_many_sessions"


def test_an_old_session_that_was_just_continued_is_kept(model, tmp_path, monkeypatch):
    """Its file is as old as it may be until the moment when it is locked."""
    from charedge.runtime.server import sessions

    lock = sessions.locked

    def continued(path):
        os.utime(path)
        return lock(path)

    with serving(model.path, sessions=tmp_path, session_days=1) as client:
        say(client, "old", PROMPT)
        os.utime(tmp_path / "old.session", (0, 0))
        with monkeypatch.context() as patches:
            patches.setattr(sessions, "locked", continued)
            assert [entry["name"] for entry in client.get("/v1/sessions").json["data"]] == ["old"]
        os.utime(tmp_path / "old.session", (0, 0))
        assert client.get("/v1/sessions").json["data"] == []


def test_what_is_not_a_file_is_not_listed(model, tmp_path):
    with serving(model.path, sessions=tmp_path) as client:
        say(client, "text", PROMPT)
        (tmp_path / "folder.session").mkdir()
        assert [entry["name"] for entry in client.get("/v1/sessions").json["data"]] == ["text"]


def test_sessions_are_bounded_in_number_and_age(model, tmp_path):
    with serving(model.path, sessions=tmp_path, max_sessions=2, session_days=1) as client:
        for name in ("old", "new"):
            say(client, name, PROMPT)
        copy = client.get("/v1/sessions/old/file").body
        for reply in (
            client.complete(session="third"),
            client.ask("PUT", "/v1/sessions/third/file", copy),
            client.ask("POST", "/v1/sessions/old/fork", {"to": "third"}),
        ):
            assert (reply.status, reply.error["code"]) == (422, "too_many_sessions")
        assert say(client, "new")
        assert b"charedge_sessions 2\n" in client.get("/metrics").body
        day = 86_400
        before = (tmp_path / "old.session").stat().st_mtime
        os.utime(tmp_path / "old.session", (before - 2 * day,) * 2)
        os.utime(tmp_path / "new.session", (before - day / 2,) * 2)
        assert say(client, "third")
        assert [entry["name"] for entry in client.get("/v1/sessions").json["data"]] == ["new", "third"]


def test_a_session_that_cannot_be_saved_is_an_error_and_not_a_text(model, tmp_path, monkeypatch):
    from charedge.runtime import session

    def full(path, content):
        raise OSError(28, "No space left on device", str(path))

    with serving(model.path, sessions=tmp_path) as client:
        monkeypatch.setattr(session, "write_atomically", full)
        reply = client.complete(session="one", max_tokens=5)
        assert (reply.status, reply.error["code"]) == (500, "session_unwritable")
        assert str(tmp_path) not in reply.error["message"]
        reply = client.complete(session="one", max_tokens=500, stream=True)
        assert reply.status == 500 or (b'"error"' in reply.body and b"[DONE]" not in reply.body)


def test_without_a_folder_sessions_are_refused_by_name(model):
    with serving(model.path) as client:
        reply = client.complete(session="one")
        assert (reply.status, reply.error["param"], reply.error["code"]) == (422, "session", "no_sessions")
        assert client.get("/v1/sessions").status == client.get("/v1/sessions/one").status == 404
