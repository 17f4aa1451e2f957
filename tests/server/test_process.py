"""`charedge serve` as a process: its address, its environment, its log, clients that leave, and the signals that end it."""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
from contextlib import contextmanager

import pytest
from conftest import command, heed_ctrl_c
from http_server import Client, serving

LONG = 10_000_000


@contextmanager
def process(*arguments, **environment):
    """A server with a port of its own, whose models are loaded: a client, whose `server` is the process."""
    arguments = command("serve", *arguments)
    environment = {**os.environ, "CHAREDGE_PORT": "0", **environment}
    server = subprocess.Popen(arguments, stderr=subprocess.PIPE, stdout=subprocess.PIPE, preexec_fn=heed_ctrl_c, env=environment)
    try:
        lines = [server.stderr.readline().decode() for _ in range(2)]
        assert "the models are loaded" in lines[1], lines
        assert re.fullmatch(r"charedge: listening on http://[\d.]+:\d+/\n", lines[0])
        client = Client(int(lines[0].rstrip("/\n").rpartition(":")[2]))
        client.server = server
        yield client
    finally:
        if server.poll() is None:
            server.kill()
        server.communicate()


def open_stream(client, **fields):
    """The response to a request for a stream, of which the first event was read."""
    connection = http.client.HTTPConnection("127.0.0.1", client.port, timeout=60)
    body = json.dumps({"stream": True, "max_tokens": LONG, **fields})
    connection.request("POST", "/v1/completions", body, {"Content-Type": "application/json"})
    response = connection.getresponse()
    assert response.status == 200
    assert response.readline().startswith(b"data: {")
    return connection, response


def metric(client, name):
    """The sum of a figure over its labels."""
    lines = client.get("/metrics").body.decode().splitlines()
    return sum(float(line.split()[-1]) for line in lines if re.match(rf"{name}[ {{]", line))


def wait_until(condition):
    """Ask the server again and again; the test's own time limit is pytest's."""
    while not condition():
        pass


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGHUP, 129)])
def test_a_signal_ends_an_idle_server(model, number, status):
    with process(model.path) as client:
        with socket.create_connection(("127.0.0.1", client.port)):  # an idle connection does not keep it
            client.server.send_signal(number)
            out, err = client.server.communicate(timeout=60)
        assert (client.server.returncode, out, err) == (status, b"", b"")


def test_a_signal_lets_texts_end_and_refuses_new_ones(model, monkeypatch):
    """In this process, where the texts have all the time that they need."""
    from charedge.runtime.server import serve

    monkeypatch.setattr(serve, "GRACE_SECONDS", 3600)
    with serving(model.path, max_length=LONG) as client:
        connection, response = open_stream(client, max_tokens=60_000, seed=1, prompt="A", stream_options={"include_usage": True})
        client.stop(signal.SIGTERM)
        wait_until(lambda: client.get("/health").status == 503)
        reply = client.complete()
        assert (reply.status, reply.headers["retry-after"], reply.error["code"]) == (503, "2", "draining")
        rest = response.read()
        assert rest.endswith(b"data: [DONE]\n\n")
        assert b'"completion_tokens":60000' in rest
        connection.close()


def test_a_second_signal_ends_texts_where_they_are(model):
    with process(model.path, "--max-length", LONG) as client:
        connection, response = open_stream(client)
        client.server.send_signal(signal.SIGTERM)
        wait_until(lambda: client.get("/health").status == 503)
        client.server.send_signal(signal.SIGTERM)
        rest = response.read()
        assert rest.endswith(b"data: [DONE]\n\n")
        assert b'"finish_reason":"length"' in rest
        connection.close()
        assert client.server.wait(60) == 0
        assert b"Traceback" not in client.server.stderr.read()


def test_a_client_that_leaves_frees_its_row(model):
    with process(model.path, "--max-length", LONG) as client:
        for stream in (True, False):
            body = json.dumps({"stream": stream, "max_tokens": LONG}).encode()
            with socket.create_connection(("127.0.0.1", client.port)) as leaving:
                head = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                leaving.sendall(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
                wait_until(lambda: metric(client, "charedge_rows_in_use") == 1)
            wait_until(lambda: metric(client, "charedge_rows_in_use") == 0)
        wait_until(lambda: b'path="/v1/completions",status="499"} 2' in client.get("/metrics").body)
        client.server.send_signal(signal.SIGTERM)
        assert client.server.wait(60) == 0
        log = client.server.stderr.read()
        assert (log.count(b"/v1/completions 499 "), b"Traceback" in log) == (2, False)


def test_every_option_has_a_variable(model, tmp_path):
    token = tmp_path / "token"
    token.write_text("a-token-of-the-environment\n")
    variables = {
        "CHAREDGE_MODELS": f"{model.path}{os.pathsep}shakespeare-tiny",
        "CHAREDGE_HOST": "0.0.0.0",
        "CHAREDGE_TOKEN_FILE": str(token),
        "CHAREDGE_ALLOW_HOST": "one.example two.example",
        "CHAREDGE_ALLOW_ORIGIN": "https://a.example https://b.example",
        "CHAREDGE_MAX_LENGTH": "7",
        "CHAREDGE_MAX_PROMPT": "8",
        "CHAREDGE_MAX_BODY": "900",
        "CHAREDGE_CONCURRENCY": "3",
        "CHAREDGE_QUEUE": "5",
        "CHAREDGE_TIMEOUT": "90",
        "CHAREDGE_SESSIONS": str(tmp_path / "sessions"),
        "CHAREDGE_MAX_SESSIONS": "2",
        "CHAREDGE_SESSION_DAYS": "1.5",
        "CHAREDGE_LOG_PROMPTS": "1",
        "CHAREDGE_THREADS": "1",
        "CHAREDGE_INTERPRETER": "ai-edge-litert",
    }
    with process(**variables) as client:
        client.headers = {"Authorization": "Bearer a-token-of-the-environment"}
        assert client.get("/health", Host="two.example").status == 200
        assert client.get("/v1/models", Origin="https://b.example").status == 200
        assert [entry["id"] for entry in client.get("/v1/models").json["data"]] == [model.path.stem, "shakespeare-tiny"]
        assert client.complete(max_tokens=8).error["param"] == "max_tokens"
        assert client.complete(prompt="x" * 9).error["param"] == "prompt"
        assert client.complete(prompt="x" * 900).status == 413
        assert client.complete(n=4).error["param"] == "n"
        for name, status in (("one", 200), ("two", 200), ("three", 422)):
            assert client.complete(session=name, prompt="\x1b[31m", model=model.path.stem).status == status
        client.server.send_signal(signal.SIGTERM)
        log = client.server.communicate()[1].decode()
    assert "POST /v1/completions 200 7 characters" in log
    assert '["\\u001b[31m"]' in log
    assert "a-token-of-the-environment" not in log


def test_prompts_are_not_logged_and_sigterm_ends_with_status_0(model):
    with process(model.path) as client:
        client.complete(prompt="a secret prompt", max_tokens=5)
        client.ask("POST", "/v1/score", {"text": "a secret text"})
        client.complete(prompt="a secret prompt", max_tokens=-1)
        client.get("/nothing?a=secret")
        client.server.send_signal(signal.SIGTERM)
        out, log = (stream.decode() for stream in client.server.communicate())
    assert (client.server.returncode, out, log.count("\n")) == (0, "", 4)
    assert "secret" not in log


def test_a_port_that_is_in_use_and_a_model_that_does_not_load_are_said(model, charedge, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        result = charedge("serve", model.path, "--port", taken.getsockname()[1])
    assert (result.status, result.stderr.count("\n"), "--port" in result.stderr) == (1, 1, True)
    damaged = tmp_path / "damaged.tflite"
    damaged.write_bytes(model.path.read_bytes()[:1000])
    result = charedge("serve", model.path, damaged, "--port", 0)
    assert result.status == 1
    assert "damaged.tflite" in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr
    (tmp_path / "copy").mkdir()
    same = tmp_path / "copy" / model.path.name
    same.write_bytes(model.path.read_bytes())
    result = charedge("serve", model.path, same)
    assert (result.status, model.path.stem in result.stderr) == (2, True)


def test_while_models_load_the_port_answers(model, monkeypatch):
    import asyncio
    import threading

    from charedge.runtime.server.serve import Server, listening_socket
    from charedge.runtime.server.served import load_models
    from charedge.runtime.server.service import Service
    from charedge.runtime.server.settings import Settings

    settings, go = Settings(port=0), threading.Event()

    def load():
        go.wait()
        return load_models([model.path], settings)

    server = Server(Service(settings), load)
    with listening_socket(settings) as listener:
        thread = threading.Thread(target=lambda: asyncio.run(server.serve([listener])))
        thread.start()
        client = Client(listener.getsockname()[1])
        reply = client.complete()
        assert (reply.status, reply.headers["retry-after"], reply.error["code"]) == (503, "2", "loading")
        health = client.get("/health")
        assert (health.status, health.json) == (503, {"status": "loading"})
        assert client.get("/").status == client.get("/metrics").status == 200
        go.set()
        wait_until(lambda: client.get("/health").status == 200)
        assert client.complete(max_tokens=1).status == 200
        server.should_exit = True
        thread.join()


def test_without_the_extra_the_command_says_what_to_install(charedge, monkeypatch):
    import importlib.util

    found = importlib.util.find_spec
    monkeypatch.setattr("charedge.runtime.server.cli.find_spec", lambda name: None if name == "uvicorn" else found(name))
    result = charedge("serve")
    assert (result.status, "pip install 'charedge[serve]'" in result.stderr) == (1, True)
