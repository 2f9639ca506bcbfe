"""Agreement of a latency table of this machine with measurements of other networks.

    python here.py results/mobilenet_v3.csv ofa_mbv3_d234_e346_k357_w1.0 latencies.jsonl again.jsonl [NETWORKS [gpu]]

The table: every stage's choices timed once, their sum calibrated on 24 whole networks (16 fitted, 8 held out), as a search
has it. Then 100 (NETWORKS less 24) random sub-networks are measured whole, and half of them a second time, in `again.jsonl`:
no table can agree better with a measurement than a second measurement does. One thread, batch 1, 224 pixels. What was
measured is kept, and the same command goes on where it was killed.
"""

import csv
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.stats import kendalltau

from nasjax import supernets
from nasjax.hardware.profiling import networks_to_measure, profile
from nasjax.hardware.timer import Timer

FITTED = 24
HARDWARE = {"cpu": {"name": "cpu", "threads": 1}, "gpu": {"name": "gpu", "seconds": 2.0}}


def agreement(what: str, found: np.ndarray, wanted: np.ndarray) -> None:
    """Prints how well two sets of latencies of the same networks agree."""
    error = 100 * np.abs(found / wanted - 1)
    print(
        f"{what}: {len(found)} networks, tau {kendalltau(found, wanted).statistic:.3f}, error {np.median(error):.1f} % "
        f"(median), {error.mean():.1f} % (mean)"
    )


def main(out: str, supernet: str, kept: str, again: str, number: str = "124", device: str = "cpu") -> None:
    net = supernets.create(supernet)
    made = profile(net, {**HARDWARE[device], "networks": FITTED, "file": kept})
    print(made.summary())
    archs = networks_to_measure(net.space, int(number))
    # The first networks are those that the table was calibrated on, whatever the number is.
    seen = {arch.tobytes() for arch in made.archs}
    rest = np.stack([arch for arch in archs if arch.tobytes() not in seen])
    first = made.measure(rest)
    estimates = made.model.exact(rest)
    made.timer.close()
    agreement("table and measurement", estimates, first)
    setting = {"within": made.target.within, "seconds": made.target.seconds}
    second = replace(made, timer=Timer(made.target.open(), Path(again), setting, made.timer.reference_pace))
    half = rest[: len(rest) // 2]
    repeated = second.measure(half)
    second.timer.close()
    agreement("two measurements", repeated, first[: len(half)])
    agreement("table and second measurement", estimates[: len(half)], repeated)
    agreement("table and mean of both", estimates[: len(half)], (repeated + first[: len(half)]) / 2)
    with Path(out).open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*net.space.names, "estimate", "measured", "again"])
        for i, arch in enumerate(rest):
            chosen = net.space.decode(arch)
            words = [chosen.get(name, "") for name in net.space.names]
            writer.writerow([*words, estimates[i], first[i], repeated[i] if i < len(half) else ""])


if __name__ == "__main__":
    main(*sys.argv[1:])
