"""What a character costs with charedge and with its peers, in one run: one GRU, one thread, sampling and decoding included.

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
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path

from charedge.runtime.interpreter import quiet_stderr
from step_loop import EMBEDDING_DIM, TEMPERATURE, VOCABULARY, Loop, alternate

PEERS = {
    "charedge_int8": "ai-edge-litert",
    "tensorflow_tutorial": "tensorflow",
    "pytorch": "torch",
    "onnx_runtime": "onnxruntime",
}
"""The modules in `peers/`, and the distribution that each of them measures. Their `loops(units)` are the rows of the table."""

WHOLE, INVOKE, BATCH = "charedge int8", "charedge int8, invoke() alone", "charedge int8, batch of 8"

ENVIRONMENT = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "3"}
"""One thread, no GPU, and no chatter."""


def serve(module: str, units: int, connection: Connection) -> None:
    """In a peer's process: name its loops, then run each as often as asked."""
    sys.path.insert(0, str(Path(__file__).with_name("peers")))
    try:
        with quiet_stderr():
            loops: dict[str, Loop] = importlib.import_module(module).loops(units)
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


def start(module: str, units: int) -> dict[str, Loop]:
    """The loops of a peer, which run in a process that ends with this one.

    Raises:
        ModuleNotFoundError: the peer is not installed.
    """
    context = multiprocessing.get_context("spawn")
    near, far = context.Pipe()
    context.Process(target=serve, args=(module, units, far), daemon=True).start()
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


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--units", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=9)
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
    ratios = {
        "whole loop / invoke() alone": microseconds[WHOLE] / microseconds[INVOKE],
        "characters/s of batch 8 / batch 1": microseconds[WHOLE] / microseconds[BATCH],
    }
    ratios |= {f"{name} / {WHOLE}": time / microseconds[WHOLE] for name, time in microseconds.items() if not name.startswith(WHOLE)}

    print(f"GRU of {options.units}, embedding {EMBEDDING_DIM}, {len(VOCABULARY)} tokens, temperature {TEMPERATURE}, one thread")
    print(", ".join(f"{distribution} {installed}" for distribution, installed in versions.items()))
    print(f"\n{'':50} {'us/character':>12}")
    for name, time in microseconds.items():
        print(f"{name:50} {time:12.1f}")
    print(f"\n{'':50} {'ratio':>12}")
    for name, ratio in ratios.items():
        print(f"{name:50} {ratio:12.2f}")
    if options.json:
        figures = {"versions": versions, "microseconds_per_character": microseconds, "ratios": ratios, "rounds": rounds}
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
