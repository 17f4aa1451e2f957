"""Training speed on one logical CPU device and on several: characters a second of `charedge train`, in one run.

python benchmarks/cpu_devices.py                    networks of 2 x 160 to 2 x 608 and of 1 x 1024
python benchmarks/cpu_devices.py --devices 1 2 4    other numbers of devices
python benchmarks/cpu_devices.py --json FILE        the figures to a file, too
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
from pathlib import Path

from arguments import positive
from training import BATCH_CHARACTERS, charedge_speed

NETWORKS = ("2x160", "2x304", "2x608", "1x1024")
EPOCH_CHARACTERS = 15_000_000
"""Characters of an epoch times units: an epoch of any network then takes seconds."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--networks", nargs="+", default=NETWORKS, metavar="LAYERSxUNITS")
    parser.add_argument("--devices", nargs="+", type=positive, default=[1, 2])
    parser.add_argument("--precision", default="auto", help="as in `charedge train`")
    parser.add_argument("--rounds", type=positive, default=3)
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    medians: dict[str, dict[int, float]] = {}
    print(f"charedge train --precision {options.precision}, batches of 64 x 100: characters/s, and times those of the first column")
    print(f"{'GRU':8}" + "".join(f"{f'{count} device(s)':>18}" for count in options.devices))
    for network in options.networks:
        layers, units = map(int, network.split("x"))
        steps = max(6, EPOCH_CHARACTERS // (units * layers * BATCH_CHARACTERS))
        rounds: dict[int, list[float]] = {count: [] for count in options.devices}
        with tempfile.TemporaryDirectory() as folder:
            shape = (Path(folder), units, options.precision, steps, layers)
            speeds = {n: charedge_speed(*shape, preset="base", batching="shuffled", cpu_devices=n) for n in rounds}
            for _ in range(options.rounds):  # they take turns, so that a machine's drift hits all alike
                for count, speed in speeds.items():
                    rounds[count].append(speed())
        medians[network] = {count: statistics.median(values) for count, values in rounds.items()}
        first = medians[network][options.devices[0]]
        cells = (f"{value:,.0f} ({value / first:.2f})" for value in medians[network].values())
        print(f"{network:8}" + "".join(f"{cell:>18}" for cell in cells), flush=True)
    if options.json:
        options.json.write_text(json.dumps(medians, indent=2) + "\n")


if __name__ == "__main__":
    main()
