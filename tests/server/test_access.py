"""Who may ask: the token, the name in the Host header, the page of an Origin, and the limits of a connection."""

import json
import queue
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from http_server import serving

TOKEN = "a-token-that-is-long-enough"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
PAGE = "https://display.example"


@pytest.fixture(scope="module")
def guarded(model):
    with serving(model.path, token=TOKEN, allow_host=("pi.example",), allow_origin=(PAGE,)) as client:
        yield client


@pytest.mark.parametrize(
    "given", ["", "Bearer", "Bearer wrong", f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", "Bearer é"]
)
def test_a_wrong_token_is_refused(guarded, given):
    for path in ("/v1/models", "/metrics", "/openapi.json", "/nothing", "//", "/v1/sessions"):
        reply = guarded.get(path, **({"Authorization": given.encode("latin-1")} if given else {}))
        assert (reply.status, reply.error["type"], reply.headers["www-authenticate"]) == (401, "authentication_error", "Bearer")
        assert TOKEN not in reply.body.decode()


def test_the_token_opens_everything_and_the_page_needs_none(guarded):
    assert guarded.get("/v1/models", **BEARER).status == 200
    assert guarded.get("/v1/models", Authorization=f"bearer  {TOKEN} ").status == 200
    assert guarded.get("/nothing", **BEARER).status == 404
    for path in ("/", "/health"):
        assert guarded.get(path).status == 200


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LocalHost:8080", 200),
        ("127.0.0.1:1", 200),
        ("192.168.1.5", 200),
        ("[::1]:8080", 200),
        ("pi.example:80", 200),
        ("pi.example.", 200),
        (socket.gethostname(), 200),
        ("attacker.example", 421),
        ("127.0.0.1.attacker.example", 421),
        ("localhost.attacker.example", 421),
        ("attacker.example:80@localhost", 200),  # whose host is localhost
        ("localhost@attacker.example", 421),
        ("", 421),
        ("[::1", 421),
        ("localhost:port", 421),
    ],
)
def test_a_name_that_is_not_ours_is_refused(guarded, host, status):
    """A page whose own name was made to point here sends that name."""
    assert guarded.get("/health", Host=host).status == status


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://localhost:80", 200),
        ("https://localhost", 200),  # a proxy in front of the server may speak TLS
        ("http://localhost:81", 403),
        (PAGE, 200),
        ("https://other.example", 403),
        (f"{PAGE}.attacker.example", 403),
        ("null", 403),
        ("", 403),
    ],
)
def test_a_page_of_another_site_is_refused(guarded, origin, status):
    reply = guarded.get("/v1/models", Origin=origin, Host="localhost", **BEARER)
    assert reply.status == status
    assert reply.headers.get("access-control-allow-origin") == (PAGE if origin == PAGE else None)


def test_a_browser_that_asks_before_a_request_is_told_what_is_allowed(guarded):
    asks = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    reply = guarded.ask("OPTIONS", "/v1/completions", Origin=PAGE, **asks)
    assert (reply.status, reply.headers["access-control-allow-origin"], reply.headers["vary"]) == (204, PAGE, "Origin")
    assert "Authorization" in reply.headers["access-control-allow-headers"]
    assert guarded.ask("OPTIONS", "/v1/completions", Origin="https://other.example", **asks).status == 403


def test_without_a_list_no_other_page_may_ask(client):
    reply = client.get("/v1/models", Origin=PAGE)
    assert (reply.status, reply.headers.get("access-control-allow-origin")) == (403, None)
    assert client.ask("POST", "/v1/completions", {}, Origin="http://127.0.0.1:9").status == 403
    assert client.get("/v1/models", Origin=f"http://127.0.0.1:{client.port}").status == 200


def test_the_page_may_load_nothing_from_elsewhere(client):
    reply = client.get("/")
    assert reply.headers["content-type"].startswith("text/html")
    policy = reply.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy


def exchange(client, data):
    """What a server answers to bytes, until it closes the connection."""
    with socket.create_connection(("127.0.0.1", client.port), timeout=60) as connection:
        connection.sendall(data)
        received = b""
        while part := connection.recv(65536):
            received += part
        return received


POST = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


def test_what_is_not_http_gets_an_error_object(client):
    for data in (
        b"hello\r\n\r\n",
        b"GET / HTTP/9\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 20_000,
        b"\0" * 100,
    ):
        answer = exchange(client, data)
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert b'{"error": {"message"' in answer


def test_a_slow_head_and_a_slow_body_are_refused(model, monkeypatch):
    from charedge.runtime.server import body, connection

    monkeypatch.setattr(connection, "HEAD_SECONDS", 0.05)
    monkeypatch.setattr(body, "BODY_SECONDS", 0.05)
    with serving(model.path) as client:
        for data in (b"", b"GET / HT", POST, POST + b"Content-Length: 9\r\n\r\n{"):
            assert exchange(client, data).startswith(b"HTTP/1.1 408 ")
        monkeypatch.undo()
        assert client.get("/health").status == 200


def test_a_body_that_is_too_large_is_refused_whoever_says_how_large_it_is(model):
    with serving(model.path, max_body=1000) as client:
        large = b"x" * 5_000
        for data in (
            POST + b"Content-Length: 5000\r\n\r\n" + large,
            POST + b"Content-Length: 99999999999999999999\r\n\r\n" + large,
            POST + b"Transfer-Encoding: chunked\r\n\r\n1388\r\n" + large + b"\r\n0\r\n\r\n",
            POST + b"Expect: 100-continue\r\nContent-Length: 5000\r\n\r\n",
        ):
            answer = exchange(client, data)
            assert answer.startswith(b"HTTP/1.1 413 "), answer


def test_too_many_connections_are_refused(model, monkeypatch):
    from charedge.runtime.server import connection

    monkeypatch.setattr(connection, "MAX_CONNECTIONS", 1)
    with serving(model.path) as client, socket.create_connection(("127.0.0.1", client.port)) as held:
        answer = exchange(client, b"")
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"Retry-After" in answer
        held.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert held.recv(100).startswith(b"HTTP/1.1 200 ")


def test_a_request_that_takes_too_long_is_ended(model):
    with serving(model.path, timeout=0.2, max_length=10_000_000) as client:
        reply = client.complete(max_tokens=10_000_000)
        assert (reply.status, reply.error["code"]) == (504, "timeout")
        replies = (client.complete(max_tokens=10_000_000, stream=True) for _ in range(100))
        reply = next(reply for reply in replies if reply.status == 200)  # whose first character came in time
        last = reply.body.split(b"\n\n")[-2]
        assert last.startswith(b'data: {"error"')
        assert b"[DONE]" not in reply.body
        (engine,) = [served.engine for served in client.service.models.values()]
        while engine.rows_in_use:  # the loop lets go of the text after the answer
            pass


def test_a_client_that_does_not_read_is_disconnected(model, monkeypatch):
    from charedge.runtime.server import connection

    monkeypatch.setattr(connection, "STALL_SECONDS", 0.2)
    with serving(model.path, max_length=10_000_000) as client, socket.socket() as silent:
        silent.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        silent.connect(("127.0.0.1", client.port))
        body = b'{"max_tokens": 10000000, "stream": true, "n": 8}'
        silent.sendall(POST + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        assert silent.recv(100).startswith(b"HTTP/1.1 200 ")
        while b'status="499"' not in client.get("/metrics").body:  # the server has noticed
            pass
        assert rows(client) == 0


def rows(client):
    """The rows that are in use, once the engine has taken notice of what it was told."""
    engines = [served.engine for served in client.service.models.values()]
    client.texts(max_tokens=1)  # the engine has begun another round
    return sum(engine.rows_in_use for engine in engines)


def test_a_full_queue_refuses_and_says_when_to_come_back(model):
    with serving(model.path, concurrency=1, queue=0, max_length=10_000_000, timeout=30) as client:
        with endless(client):
            reply = client.complete(max_tokens=1)
            assert (reply.status, reply.headers["retry-after"], reply.error["code"]) == (429, "1", "queue_full")
        while client.complete(max_tokens=1).status == 429:  # until the server has seen that the other one has left
            pass
        assert rows(client) == 0


def test_the_rows_of_a_job_are_free_before_its_answer(model):
    """Or the next request of the same client would find the server busy."""
    from charedge.runtime.sampling import Sampling
    from charedge.runtime.server.jobs import Job, ScoreJob

    with serving(model.path, concurrency=1, queue=0) as client:
        (served,) = client.service.models.values()
        writing = {"prompt": "a", "length": 3, "sampling": Sampling()}
        assert rows_when_told(served.engine, lambda tell: ScoreJob(served.model, tell, "some text")) == 0
        assert rows_when_told(served.engine, lambda tell: ScoreJob(served.model, tell, "")) == 0
        assert rows_when_told(served.engine, lambda tell: Job(served.model, tell, **writing)) == 0
        assert rows_when_told(served.engine, lambda tell: Job(served.model, tell, **writing, pattern="[0-9]{2}")) == 0


def rows_when_told(engine, make_job):
    """The rows that are in use at the moment when the engine says that the job is done."""
    told = queue.Queue()
    job = make_job(lambda: told.put((job.done, engine.rows_in_use)))
    engine.submit(job)
    return next(rows for done, rows in iter(told.get, None) if done)


@contextmanager
def endless(client, **fields):
    """A client that reads a text without an end, of which the first part has come."""
    with socket.create_connection(("127.0.0.1", client.port)) as held:
        body = json.dumps({"max_tokens": 10_000_000, "stream": True, **fields}).encode()
        held.sendall(POST + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        assert held.recv(100).startswith(b"HTTP/1.1 200 ")
        yield held


def test_a_prompt_list_is_refused_as_a_whole_when_the_queue_is_full(model):
    with serving(model.path, concurrency=2, queue=0, max_length=10_000_000) as client:
        with endless(client):
            reply = client.complete(prompt=["a", "b"], max_tokens=10_000_000)  # there is a row for the first one
            assert (reply.status, reply.error["code"]) == (429, "queue_full")
            assert client.complete(max_tokens=1).status == 200
        reply = client.complete(prompt=["a", "b"], max_tokens=5)
        while reply.status == 429:  # until the server has seen that the other one has left
            reply = client.complete(prompt=["a", "b"], max_tokens=5)
        assert (reply.status, rows(client)) == (200, 0)


def test_those_behind_one_that_leaves_the_queue_go_on(model):
    """With one of two rows in use, a request for two texts waits, and one for one text behind it."""
    with serving(model.path, concurrency=2, queue=2, max_length=10_000_000, timeout=3600) as client, endless(client):
        (engine,) = [served.engine for served in client.service.models.values()]
        with socket.create_connection(("127.0.0.1", client.port)) as leaving, ThreadPoolExecutor(1) as pool:
            body = b'{"max_tokens": 5, "n": 2}'
            leaving.sendall(POST + b"Content-Length: %d\r\n\r\n" % len(body) + body)
            while engine.queued < 1:
                pass
            behind = pool.submit(client.texts, max_tokens=1)
            while engine.queued < 2:
                pass
            leaving.close()
            assert behind.result()
            assert engine.rows_in_use == 1  # the endless text's, which it did not wait for


@pytest.mark.parametrize("place", ["read", "fed"])
def test_an_error_while_a_prompt_is_read_is_reported_and_ends_nothing_else(model, monkeypatch, place):
    """As when memory runs out."""
    from charedge.runtime.server.jobs import Job

    def fail(*_):
        raise MemoryError

    with serving(model.path, concurrency=1, queue=0) as client:
        with monkeypatch.context() as patches:
            patches.setattr(Job, place, fail)
            reply = client.complete(max_tokens=5)
            assert (reply.status, "stopped with an error (MemoryError)" in reply.error["message"]) == (500, True)
        assert client.texts(max_tokens=5)
        assert rows(client) == 0


def test_a_server_that_others_reach_needs_a_token(charedge, tmp_path):
    for host in ("0.0.0.0", "::", "192.168.1.5", "example.org"):
        result = charedge("serve", tmp_path / "not-read.tflite", "--host", host)
        assert (result.status, "--token-file" in result.stderr) == (2, True)
    token = tmp_path / "token"
    for content in ("", "\n", "short\n", "\nlong-enough-but-in-line-two\n", "with spaces in the token\n"):
        token.write_text(content)
        result = charedge("serve", tmp_path / "not-read.tflite", "--token-file", token)
        assert (result.status, "at least 16" in result.stderr) == (1, True)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--port", 70_000), "--port"),
        (("--port", -1), "--port"),
        (("--concurrency", 0), "--concurrency"),
        (("--timeout", "nan"), "--timeout"),
        (("--max-body", 0), "--max-body"),
        (("--allow-origin", "example.org"), "--allow-origin"),
        (("--allow-origin", "https://example.org/"), "--allow-origin"),
        (("--allow-host", "http://example.org"), "--allow-host"),
        (("--host", "no such name"), "--host"),
    ],
)
def test_a_wrong_option_is_named(charedge, options, named):
    result = charedge("serve", *options)
    assert result.status in (1, 2)
    assert named in result.stderr
    assert result.stderr.count("\n") == 1
