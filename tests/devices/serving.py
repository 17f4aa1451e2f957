"""A device's `charedge serve`, asked by this machine."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path
from urllib.request import Request, urlopen

from emulation import Device, clean_environment

FIELDS = {"prompt": "Hello", "max_tokens": 40, "seed": 1}
MOST_SECONDS = 600
READY = "the models are loaded"


def served_texts(device: Device, model: Path) -> list[str]:
    """Start a server, ask it for a text as a whole and for the same text as a stream, and stop it.

    Raises:
        RuntimeError: it does not start, or does not end with status 0.
    """
    command = [device.python, "-m", "charedge", "serve", model, "--port", "0"]
    server = subprocess.Popen([*map(str, command)], stderr=subprocess.PIPE, text=True, env=clean_environment())
    assert server.stderr is not None
    try:
        said = server.stderr.readline()
        while said and READY not in (line := server.stderr.readline()):
            said += line
            if not line:
                raise RuntimeError(f"the server does not start: {said[-1000:]}")
        address = said.splitlines()[0].rpartition(" ")[2]
        texts = [_text(address), _streamed(address)]
    finally:
        server.send_signal(signal.SIGTERM)
        _, rest = server.communicate(timeout=MOST_SECONDS)
    if server.returncode:
        raise RuntimeError(f"the server ends with status {server.returncode}: {rest[-1000:]}")
    return texts


def _post(address: str, **fields: object) -> bytes:
    body = json.dumps({**FIELDS, **fields}).encode()
    with urlopen(Request(f"{address}v1/completions", body, {"Content-Type": "application/json"}), timeout=MOST_SECONDS) as answer:
        return answer.read()


def _text(address: str) -> str:
    return json.loads(_post(address))["choices"][0]["text"]


def _streamed(address: str) -> str:
    lines = _post(address, stream=True).decode().splitlines()
    events = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: {")]
    return "".join(choice["text"] for event in events for choice in event["choices"])
