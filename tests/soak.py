"""Load a server for minutes with everything that clients do, and see that it answers, keeps its memory, and ends cleanly.

    python tests/soak.py [--seconds 600] [--clients 24] [--seed 1] [--model FILE]

The clients stream texts, read them slowly, disconnect in the middle, score, continue sessions, and send bodies that are too large,
malformed or wrong. Every request must get the status that it should; the memory of the server may grow by 5 MB after a warm-up of
a fifth of the time; and SIGTERM must end it with status 0.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from urllib.request import urlopen

MOST_GROWTH = 5 * 10**6
WARM_UP = 0.2
MAX_PROMPT = 20_000

Action = Callable[["Client"], Awaitable[None]]


class Failed(Exception):
    """A request was not answered as it should be."""


class Client:
    """One client, which does one thing after another."""

    def __init__(self, port: int, random_: random.Random, counts: Counter[str]) -> None:
        self.port, self.random, self.counts = port, random_, counts

    async def run(self, until: float) -> None:
        while time.monotonic() < until:
            action = self.random.choice(ACTIONS)
            await asyncio.wait_for(action(self), 120)
            self.counts[action.__name__] += 1

    async def send(self, path: str, body: bytes, method: str = "POST") -> tuple[asyncio.StreamReader, asyncio.StreamWriter, int]:
        """Send a request, and read the status of its answer and the headers."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 24)
        head = f"{method} {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\ncontent-type: application/json\r\n"
        writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        status = int((await reader.readline()).split()[1])
        while (await reader.readline()).strip():
            pass
        return reader, writer, status

    async def ask(self, expected: set[int], path: str, body: bytes, method: str = "POST") -> bytes:
        """Send a request and read the whole answer."""
        reader, writer, status = await self.send(path, body, method)
        content = await reader.read()
        writer.close()
        if status not in expected:
            raise Failed(f"{method} {path} got {status}, not {expected}: {content[:300]!r}")
        return content

    def fields(self, **fields: object) -> bytes:
        prompt = "".join(self.random.choices("abc ROMEO:\n", k=self.random.choice([0, 10, 200])))
        return json.dumps({"prompt": prompt, "max_tokens": self.random.randint(1, 800), **fields}).encode()


async def stream(client: Client) -> None:
    content = await client.ask({200, 429}, "/v1/completions", client.fields(stream=True, n=client.random.randint(1, 3)))
    if b'"error"' not in content and b"data: [DONE]" not in content:
        raise Failed(f"a stream has no end: {content[-200:]!r}")


async def complete(client: Client) -> None:
    options = client.random.choice(
        [{"logprobs": 2, "echo": True}, {"stop": ["e", "\n"]}, {"top_k": 5}, {"adapt": True}, {"pattern": "[a-z ]{1,20}"}]
    )
    await client.ask({200, 429}, "/v1/completions", client.fields(**options))


async def read_slowly(client: Client) -> None:
    reader, writer, status = await client.send("/v1/completions", client.fields(stream=True))
    while status == 200 and await reader.read(200):
        await asyncio.sleep(0.02)
    writer.close()


async def disconnect(client: Client) -> None:
    reader, writer, _ = await client.send("/v1/completions", client.fields(stream=True, max_tokens=5000))
    await reader.read(client.random.randint(1, 3000))
    writer.transport.abort()


async def disconnect_before_the_answer(client: Client) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", client.port)
    body = client.fields(max_tokens=5000)
    head = "POST /v1/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
    request = f"{head}content-length: {len(body)}\r\n\r\n".encode() + body
    writer.write(request[: client.random.randint(1, len(request))])
    await writer.drain()
    writer.transport.abort()


async def score(client: Client) -> None:
    text = "To be, or not to be. " * client.random.randint(1, 50)
    await client.ask({200, 429}, "/v1/score", json.dumps({"text": text}).encode())


async def continue_a_session(client: Client) -> None:
    name = f"soak-{client.random.randint(1, 10)}"
    await client.ask({200, 409, 429}, "/v1/completions", client.fields(session=name, adapt=client.random.random() < 0.3))


async def send_too_much(client: Client) -> None:
    await client.ask({413}, "/v1/completions", json.dumps({"prompt": "x" * 8 * MAX_PROMPT}).encode())


async def send_a_long_prompt(client: Client) -> None:
    await client.ask({413, 422}, "/v1/completions", json.dumps({"prompt": "x" * (MAX_PROMPT + 1)}).encode())


async def send_nonsense(client: Client) -> None:
    body = client.random.choice([b"", b"{", b"\xff", b"[" * 5000, b'{"n": 1e999}', client.random.randbytes(200)])
    await client.ask({400, 422}, "/v1/completions", body)


async def send_wrong_fields(client: Client) -> None:
    fields = client.random.choice([{"max_tokens": -1}, {"temperature": "hot"}, {"n": 10**30}, {"tempreature": 1}, {"pattern": "("}])
    await client.ask({422}, "/v1/completions", client.fields(**fields))


async def look_around(client: Client) -> None:
    for path, expected in (("/", 200), ("/health", 200), ("/metrics", 200), ("/v1/models", 200), ("/nowhere", 404)):
        await client.ask({expected}, path, b"", "GET")


ACTIONS: list[Action] = [
    stream,
    stream,
    complete,
    complete,
    read_slowly,
    disconnect,
    disconnect_before_the_answer,
    score,
    continue_a_session,
    send_too_much,
    send_a_long_prompt,
    send_nonsense,
    send_wrong_fields,
    look_around,
]


async def load(port: int, pid: int, seconds: float, clients: int, seed: int) -> tuple[int, Counter[str]]:
    """Load the server.

    Returns:
        By how many bytes its memory grew after the warm-up, and how often each thing was done.
    """
    counts = Counter[str]()
    until = time.monotonic() + seconds
    running = [Client(port, random.Random(1000 * seed + number), counts).run(until) for number in range(clients)]
    memory = asyncio.create_task(_memory(pid, seconds))
    await asyncio.gather(*running)
    before = await memory
    return _resident_bytes(pid) - before, counts


async def _memory(pid: int, seconds: float) -> int:
    await asyncio.sleep(WARM_UP * seconds)
    return _resident_bytes(pid)


def _resident_bytes(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:"))


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def _wait_until_it_is_ready(process: subprocess.Popen[bytes], port: int) -> None:
    while process.poll() is None:
        try:
            with urlopen(f"http://127.0.0.1:{port}/health"):
                return
        except OSError:  # it does not listen yet, or its model is being loaded
            time.sleep(0.02)
    sys.exit(f"the server ended with status {process.returncode}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--clients", type=int, default=24)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--model", default="shakespeare-tiny")
    options = parser.parse_args()
    port = _free_port()
    with tempfile.TemporaryDirectory() as folder, Path(folder, "log").open("w+b") as log:
        limits = ["--max-prompt", str(MAX_PROMPT), "--max-body", str(4 * MAX_PROMPT)]
        command = ["serve", options.model, "--port", str(port), "--sessions", folder, *limits]
        process = subprocess.Popen([sys.executable, "-m", "charedge", *command], stderr=log)
        try:
            _wait_until_it_is_ready(process, port)
            growth, counts = asyncio.run(load(port, process.pid, options.seconds, options.clients, options.seed))
        except Failed as error:
            process.kill()
            sys.exit(str(error))
        process.send_signal(signal.SIGTERM)
        status = process.wait(60)
        log.seek(0)
        traceback = b"Traceback" in log.read()
    print(f"{sum(counts.values()):,} things done: " + ", ".join(f"{name} {count:,}" for name, count in sorted(counts.items())))
    print(f"memory grew by {growth / 1e6:.1f} MB after the warm-up; exit status {status}")
    if growth > MOST_GROWTH or status or traceback:
        sys.exit("failed" + (": the log has a traceback" if traceback else ""))


if __name__ == "__main__":
    main()
