"""How much a measured latency varies, with and without correction for the machine's changing pace.

    taskset -c 0 python benchmarks/pace.py [SECONDS [SUPERNET]]

One random sub-network runs on one thread at batch 1 for SECONDS (120). Every three seconds count as one measurement, whose
result is the median of its repeats. Printed is how much these medians vary, as measured and scaled to one pace.
"""

import sys
import time

import jax
import numpy as np

from nasjax import supernets
from nasjax.hardware.latency_table import extracted
from nasjax.hardware.measurement import Precision, compiled, time_repeats
from nasjax.hardware.pace import Pace
from nasjax.hardware.profiling import networks_to_measure

WINDOW = 3.0
"""Seconds of one measurement."""


def print_spread(what: str, medians: list[float]) -> None:
    """Prints how much the results of several measurements differ."""
    values = np.array(medians)
    variation, excess = values.std() / values.mean(), values.max() / values.min() - 1
    print(
        f"{what}: {len(values)} measurements, median {np.median(values):.2f} ms, standard deviation "
        f"{100 * variation:.1f} %, largest {100 * excess:.0f} % above the smallest"
    )


def main(seconds: float = 120, supernet: str = "ofa_mbv3_d234_e346_k357_w1.0") -> None:
    net = supernets.abstract(supernet)
    network = extracted(net, tuple(map(int, networks_to_measure(net.space, 3)[2])))
    program = compiled(network, network.inputs(1), jax.devices("cpu")[0])
    found = time_repeats(program.run, time.perf_counter, Precision(within=-1, seconds=seconds), Pace(time.perf_counter))
    low, middle, high = np.quantile(found.work, (0.25, 0.5, 0.75))
    print(f"{len(found.times)} repeats; the work beside them: {low:.2f}, {middle:.2f}, {high:.2f} ms (quartiles)")
    window = (np.cumsum(found.times) // (1e3 * WINDOW)).astype(int)
    parts = [window == i for i in range(window[-1])]
    print_spread("as measured", [np.median(found.times[part]) for part in parts])
    print_spread("scaled to one pace", [np.median((found.times * middle / found.work)[part]) for part in parts])


if __name__ == "__main__":
    main(*map(float, sys.argv[1:2]), *sys.argv[2:3])
