"""A server in a thread of the test's process, on a port of its own, and a client of the standard library."""

from __future__ import annotations

import asyncio
import http.client
import json
import threading
from contextlib import contextmanager
from typing import Any


class Reply:
    """A response: its status, headers and body."""

    def __init__(self, response):
        self.status, self.headers, self.body = response.status, response.headers, response.read()

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def error(self):
        """The error object, whose shape is the same for every error."""
        (error,) = self.json.values()
        assert set(error) == {"message", "type", "param", "code"}
        assert error["message"]
        return error

    @property
    def events(self):
        """The JSON objects of a stream, which ends as it should."""
        assert self.headers["content-type"].startswith("text/event-stream")
        assert self.body.endswith(b"data: [DONE]\n\n")
        return [json.loads(line.removeprefix(b"data: ")) for line in self.body.split(b"\n\n")[:-2]]


class Client:
    """Requests to a server; each has a connection of its own.

    Attributes:
        service: of a server in this process.
        stop: does there what a signal does to a process.
        server: of a server in another process, that process.
    """

    service: Any = None
    stop: Any = None
    page: Any = None
    server: Any = None

    def __init__(self, port, headers=None):
        self.port, self.headers = port, headers or {}

    def ask(self, method, path, body=None, **headers):
        """Send a request; a body that is not bytes is sent as JSON."""
        if body is not None and not isinstance(body, bytes):
            headers, body = {"Content-Type": "application/json", **headers}, json.dumps(body).encode()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, {**self.headers, **headers})
            return Reply(connection.getresponse())
        finally:
            connection.close()

    def get(self, path, **headers):
        return self.ask("GET", path, **headers)

    def complete(self, **fields):
        """Ask for texts."""
        return self.ask("POST", "/v1/completions", fields)

    def texts(self, **fields):
        """The texts that fields give, in order."""
        reply = self.complete(**fields)
        assert reply.status == 200, reply.body
        return [choice["text"] for choice in reply.json["choices"]]

    def streamed(self, **fields):
        """The same texts and their ends, put together from a stream."""
        texts, ends = {}, {}
        for part in self.complete(stream=True, **fields).events:
            for choice in part["choices"]:
                texts[choice["index"]] = texts.get(choice["index"], "") + choice["text"]
                if choice["finish_reason"]:
                    assert choice["index"] not in ends
                    ends[choice["index"]] = choice["finish_reason"]
        assert texts.keys() == ends.keys()
        return [texts[index] for index in sorted(texts)]


@contextmanager
def serving(*paths, **settings):
    """A server that runs in a thread, with its models loaded."""
    from charedge.runtime.server.serve import Server, listening_socket
    from charedge.runtime.server.served import load_models
    from charedge.runtime.server.service import Service
    from charedge.runtime.server.settings import Settings

    settings = Settings(**{"port": 0, **settings})
    service = Service(settings, load_models(paths, settings))
    server = Server(service, lambda: service.models)
    with listening_socket(settings) as listener:
        client = Client(listener.getsockname()[1])
        client.service = service

        async def run():
            loop = asyncio.get_running_loop()
            client.stop = lambda number: loop.call_soon_threadsafe(server.stop, number)
            await server.serve([listener])

        thread = threading.Thread(target=lambda: asyncio.run(run()))
        thread.start()
        try:
            yield client
        finally:
            server.should_exit = True
            thread.join()
