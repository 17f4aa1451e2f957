"""Time per character of charedge and of its peers, in one run: one GRU, one thread, sampling and decoding included.

python benchmarks/peers.py               each peer in a process of its own, their loops taking turns
python benchmarks/peers.py --json FILE   the same, and the figures to a file
"""

from __future__ import annotations

import argparse
import importlib
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
from importlib.metadata import version
from importlib.util import find_spec
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from arguments import positive
from charedge.runtime.interpreter import quiet_stderr
from process import Cost, charedge, cost
from random_models import EMBEDDING_DIM, VOCABULARY, random_model
from step_loop import TEMPERATURE, Loop, alternate

PEERS = {
    "charedge_profiles": "ai-edge-litert",
    "tensorflow_tutorial": "tensorflow",
    "pytorch": "torch",
    "onnx_runtime": "onnxruntime",
}
"""The modules in `peers/`, and the distribution that each of them measures. Their `loops(units)` are the rows of the table."""

OURS = ("charedge int8", "charedge int4", "charedge float16", "charedge float32")
"""The whole loop in each profile; the peers are divided by the first, and by the last where they compute in float32 too."""

ENVIRONMENT = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "3"}
"""Environment of a process with one thread, no GPU and no log lines of libraries."""

START_ROUNDS = 5
QUIET = "import os; os.dup2(os.open(os.devnull, os.O_WRONLY), 2)"


def serve(module: str, network: tuple[Any, ...], connection: Connection) -> None:
    """In a peer's process: print the names of its loops, then run each on request."""
    sys.path.insert(0, str(Path(__file__).with_name("peers")))
    try:
        with quiet_stderr():
            loops: dict[str, Loop] = importlib.import_module(module).loops(*network)
    except ModuleNotFoundError as error:
        connection.send(error)
        return
    connection.send(list(loops))
    while True:
        try:
            name, characters = connection.recv()
        except EOFError:  # the table is written
            return
        loops[name](characters)
        connection.send(None)


def start(module: str, *network: Any) -> dict[str, Loop]:
    """The loops of a peer, which run in a process that ends with this one.

    Args:
        module: in `peers/`.
        network: what its `loops` takes; the units come first.

    Raises:
        ModuleNotFoundError: the peer is not installed.
    """
    context = multiprocessing.get_context("spawn")
    near, far = context.Pipe()
    context.Process(target=serve, args=(module, network, far), daemon=True).start()
    far.close()
    answer = near.recv()
    if isinstance(answer, ModuleNotFoundError):
        raise answer

    def remote(name: str) -> Loop:
        def loop(characters: int) -> None:
            near.send((name, characters))
            near.recv()

        return loop

    return {name: remote(name) for name in answer}


def compare(microseconds: dict[str, float]) -> dict[str, float]:
    """Ratio of the times of two loops."""
    ratios = {}
    for ours in OURS:
        ratios[f"{ours}: whole loop / invoke() alone"] = microseconds[ours] / microseconds[f"{ours}, invoke() alone"]
        ratios[f"{ours}: characters/s of batch 8 / batch 1"] = microseconds[ours] / microseconds[f"{ours}, batch of 8"]
    int8, *others, float32 = OURS
    peers = [name for name in microseconds if not name.startswith("charedge")]
    ratios |= {f"{name} / {int8}": microseconds[name] / microseconds[int8] for name in [*others, float32, *peers]}
    return ratios | {f"{name} / {float32}": microseconds[name] / microseconds[float32] for name in peers if "int8" not in name}


def first_character(units: int, rounds: int) -> dict[str, Cost]:
    """Start-up time and memory of a process that writes one character with charedge; for a peer, of one that only imports it."""
    with tempfile.TemporaryDirectory() as folder:
        model = random_model(Path(folder), units, "int8")
        commands = {"charedge generate --length 1, int8": charedge(sys.executable, "generate", model, "--length", 1)}
        peers = [distribution for distribution in PEERS.values() if find_spec(distribution)]
        commands |= {f"import {peer}": [sys.executable, "-c", f"{QUIET}; import {peer}"] for peer in peers}
        costs = {name: [cost(*command) for _ in range(rounds)] for name, command in commands.items()}
    return {name: sorted(times, key=lambda one: one.seconds)[rounds // 2] for name, times in costs.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--units", type=positive, default=1024)
    parser.add_argument("--rounds", type=positive, default=9)
    parser.add_argument("--seconds", type=float, default=0.4, help="of each loop in each round")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()

    os.environ.update(ENVIRONMENT)
    loops: dict[str, Loop] = {}
    versions = {}
    for module, distribution in PEERS.items():
        try:
            versions[distribution] = version(distribution)
            loops |= start(module, options.units)
        except ModuleNotFoundError as error:
            print(f"{module} is left out: {error.name} is not installed", file=sys.stderr)

    rounds = alternate(loops, options.rounds, options.seconds)
    microseconds = {name: statistics.median(times) for name, times in rounds.items()}
    ratios = compare(microseconds)
    print(f"GRU of {options.units}, embedding {EMBEDDING_DIM}, {len(VOCABULARY)} tokens, temperature {TEMPERATURE}, one thread")
    print(", ".join(f"{distribution} {installed}" for distribution, installed in versions.items()))
    print(f"\n{'':50} {'us/character':>12}")
    for name, time in microseconds.items():
        print(f"{name:50} {time:12.1f}")
    print(f"\n{'':50} {'ratio':>12}")
    for name, ratio in ratios.items():
        print(f"{name:50} {ratio:12.2f}")
    starts = first_character(options.units, START_ROUNDS)
    print(f"\n{'process, start to exit':50} {'seconds':>12} {'peak MiB':>12}")
    for name, one in starts.items():
        print(f"{name:50} {one.seconds:12.2f} {one.peak_rss_bytes / 2**20:12.0f}")
    if options.json:
        processes = {name: {"seconds": one.seconds, "peak_rss_bytes": one.peak_rss_bytes} for name, one in starts.items()}
        figures = {"versions": versions, "microseconds_per_character": microseconds, "ratios": ratios, "rounds": rounds}
        figures["processes"] = processes
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
