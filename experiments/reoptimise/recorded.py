"""Fronts found for one recorded device and measured on others: python experiments/reoptimise/recorded.py FRONTS.csv [SEEDS]

- `nb201:DATA`: all 15,625 cells of NAS-Bench-201 are known, so fronts are the true ones, without a search. Reference point:
  the worst values of the table.
- `ofa`: Once-for-All's MobileNetV3 at 224 pixels, each front found by `ehvi` with 250 validations. Accuracies are those of
  the surrogate of experiments/tactics (without noise); latencies are predicted by a Gaussian process on 2,000 recorded
  networks of all resolutions, whose errors on other networks are printed. Reference point: 70 % and the largest network's
  latency.

Spaces and seeds that are in the file are skipped, so an interrupted command can be repeated. NASJAX_DATA as in
experiments/latency.
"""

import sys
from functools import cache
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent / name) for name in ("tactics", "latency")]

import anytime  # noqa: E402
import fronts  # noqa: E402
import problems  # noqa: E402
import recorded as latencies  # noqa: E402

from nasjax.hardware.latency_model import fit_latency  # noqa: E402
from nasjax.pareto import non_dominated_exact  # noqa: E402
from nasjax.predictors import GaussianProcess, errors  # noqa: E402

CELLS = ("gold_6226", "1080ti_1", "titan_rtx_256", "pixel3", "raspi4")
"""Devices of NAS-Bench-201 whose latencies were measured, one of each kind."""

DEVICES = ("v100_1", "v100_32", "v100_64", "titan_xp_64")
VALIDATIONS = 250
SAMPLES = 2000
LARGEST = 24
"""The index of 224 pixels among the recorded resolutions."""


@cache
def latency_model(device):
    """Returns a function from architectures to latencies (ms) at 224 pixels, and its errors on 1,000 other networks."""
    inputs, archs, milliseconds = latencies.recorded("ofa")
    order = np.random.default_rng(0).permutation(len(archs))
    train, test = order[:SAMPLES], order[-1000:]
    model = fit_latency(GaussianProcess(), inputs, archs[train], milliseconds[device][train])
    found = errors(milliseconds[device][test], model.exact(archs[test]))

    def at_224(archs):
        return model.exact(np.insert(np.asarray(archs), 0, LARGEST, axis=1))

    return at_224, found


@cache
def base():
    """Returns the benchmark with space, accuracies and predictors' inputs: one object, so that all searches compile once."""
    return problems.create("surrogate_blend")


def front_of(values):
    """Returns the rows of the non-dominated values."""
    return np.flatnonzero(non_dominated_exact(values))


def ofa(path, seed):
    """Writes every front of Once-for-All's MobileNetV3, measured on every device."""
    about = base()

    def accuracies(archs):
        return about.true(archs)[:, 0]

    found = {}
    for device in DEVICES:
        milliseconds, _ = latency_model(device)
        worst = float(milliseconds(about.space.largest()[None])[0])
        reference = np.array([-70.0, worst])

        def values(archs, milliseconds=milliseconds):
            return np.stack([accuracies(archs), milliseconds(archs)], 1)

        target = fronts.retargeted(about, values, (None, None), reference)
        archs, measured = anytime.nasjax_tactic("ehvi", target, VALIDATIONS, seed)
        found[device] = (archs[front_of(measured)], worst)
    for target in DEVICES:
        for source, (archs, _) in found.items():
            points = np.stack([-accuracies(archs), latency_model(target)[0](archs)], 1)
            fronts.write(path, "ofa", seed, source, target, points, (70.0, found[target][1]))


def cells(path, data):
    """Writes every true front of NAS-Bench-201, measured on every device."""
    values = {}
    for device in CELLS:
        problem = problems.create(f"nb201:{data}:{device}")
        values[device] = problem.true(problem.archs)
    rows = {device: front_of(table) for device, table in values.items()}
    for target, table in values.items():
        worst = table.max(0)
        for source in CELLS:
            points = table[rows[source]] * (-1, 1)
            fronts.write(path, f"nb201:{data}", 0, source, target, points, (-worst[0], worst[1]))


def main(path, seeds=3):
    done = {name[:2] for name in fronts.read(path)}
    for data in problems.DATASETS:
        if (f"nb201:{data}", 0) not in done:
            cells(path, data)
    for seed in range(seeds):
        if ("ofa", seed) not in done:
            for device in DEVICES:
                error = latency_model(device)[1]
                print(f"{device}: latencies estimated with an error of {error.mape:.1f} %, tau {error.tau:.2f}", flush=True)
            ofa(path, seed)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
