"""What `charedge serve` costs: one client and many, against the plain step loop; start, memory, and time to the first character.

python benchmarks/server.py                a model with random weights, GRU 1024, int8, 66 tokens
python benchmarks/server.py m.tflite       a file of your own
python benchmarks/server.py --json build/server.json

The server runs in a process of its own, and this program is all of its clients. Every text is compared with the one that
`charedge.Model.generate` writes alone.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from arguments import positive

from charedge import Model, load

UNITS = 1024
ALONE = 5_000  # characters of a single text


class Received(NamedTuple):
    """A text as a client received it."""

    text: str
    first: float
    """Seconds to its first character."""
    seconds: float


class Server:
    """`charedge serve` in a process of its own."""

    def __init__(self, model: Path) -> None:
        self.port = _free_port()
        command = [sys.executable, "-m", "charedge", "serve", str(model), "--port", str(self.port)]
        began = time.perf_counter()
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        asyncio.run(self._first_answer())
        self.start_seconds = time.perf_counter() - began

    @property
    def peak_rss_bytes(self) -> int:
        """The peak memory of the process so far (on Linux)."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:"))

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait()

    async def _first_answer(self) -> None:
        while self._process.poll() is None:
            try:
                await self.receive(1, seed=0)
                return
            except (ConnectionError, RuntimeError):  # it does not listen yet, or its model is being loaded
                await asyncio.sleep(0.005)
        sys.exit(f"charedge serve ended with status {self._process.returncode}")

    async def receive(self, characters: int, seed: int) -> Received:
        """Ask for a text, and read its stream to the end."""
        began, first, parts = time.perf_counter(), 0.0, []
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        fields = {"prompt": _prompt(seed), "max_tokens": characters, "seed": seed, "stream": True}
        body = json.dumps(fields).encode()
        head = "POST /v1/completions HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\ncontent-type: application/json\r\n"
        writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        status = (await reader.readline()).split()
        if status[1:2] != [b"200"]:
            raise RuntimeError(f"status {status}")
        async for line in reader:
            if not line.startswith(b"data: {"):
                continue
            for choice in json.loads(line[6:])["choices"]:
                if choice["text"]:
                    first = first or time.perf_counter() - began
                    parts.append(choice["text"])
        writer.close()
        return Received("".join(parts), first, time.perf_counter() - began)


def measure(model: Path, rounds: int, clients: int, characters: int) -> dict[str, float]:
    """Measure in turns: the plain loop, one client, many clients; the medians of all rounds."""
    loaded = load(model)
    plain, one, many, first, ratios_one, ratios_many = [], [], [], [], [], []
    with serving(model) as server:
        for number in range(rounds):
            began = time.perf_counter()
            alone = "".join(loaded.stream(_prompt(number), length=ALONE, seed=number))
            plain.append(ALONE / (time.perf_counter() - began))
            single = asyncio.run(server.receive(ALONE, number))
            one.append(ALONE / single.seconds)
            _require_equal(alone, single.text)
            seeds = range(1000 * number, 1000 * number + clients)
            began = time.perf_counter()
            received = asyncio.run(_together(server, characters, seeds))
            many.append(clients * characters / (time.perf_counter() - began))
            first += [text.first for text in received]
            ratios_one.append(one[-1] / plain[-1])
            ratios_many.append(many[-1] / one[-1])
            _require_all_equal(loaded, received, characters, seeds)
        peak = server.peak_rss_bytes
    return {
        "plain_characters_per_second": statistics.median(plain),
        "one_client_characters_per_second": statistics.median(one),
        "many_clients_characters_per_second": statistics.median(many),
        "one_client_relative_to_plain": statistics.median(ratios_one),
        "many_clients_relative_to_one": statistics.median(ratios_many),
        "p99_seconds_to_first_character": sorted(first)[int(0.99 * (len(first) - 1))],
        "start_seconds": statistics.median(_start_seconds(model) for _ in range(rounds)),
        "peak_rss_bytes": peak,
    }


async def _together(server: Server, characters: int, seeds: range) -> list[Received]:
    return await asyncio.gather(*(server.receive(characters, seed) for seed in seeds))


@contextmanager
def serving(model: Path) -> Iterator[Server]:
    """A server that is stopped in the end."""
    server = Server(model)
    try:
        yield server
    finally:
        server.stop()


def _start_seconds(model: Path) -> float:
    with serving(model) as server:
        return server.start_seconds


def _prompt(seed: int) -> str:
    return f"Text {chr(ord('a') + seed % 26)}: "


def _require_all_equal(model: Model, received: list[Received], characters: int, seeds: range) -> None:
    for text, seed in zip(received, seeds, strict=True):
        _require_equal(model.generate(_prompt(seed), length=characters, seed=seed), text.text)


def _require_equal(expected: str, text: str) -> None:
    if text != expected:
        sys.exit(f"the server's text differs from the one that was written alone: {text[:80]!r}, not {expected[:80]!r}")


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", nargs="?", type=Path)
    parser.add_argument("--rounds", type=positive, default=7)
    parser.add_argument("--clients", type=positive, default=32)
    parser.add_argument("--characters", type=positive, default=500, help="of each client's text")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = options.model or _random_model(Path(folder))
        figures = measure(model, options.rounds, options.clients, options.characters)
    for name, value in figures.items():
        print(f"{name:36} {value:14,.3f}" if value < 1000 else f"{name:36} {value:14,.0f}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


def _random_model(folder: Path) -> Path:
    from random_models import random_model  # what makes models is not needed to measure one, on a device

    return random_model(folder, UNITS, "int8")


if __name__ == "__main__":
    main()
