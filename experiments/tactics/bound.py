"""What a searcher of NAS-Bench-201 needs that knows the mean accuracy of every function and the latency of every cell.

    cd experiments/tactics && NASJAX_DATA=... python bound.py        # results/bound.csv and its table; two minutes

Cells that compute the same function (cells.py) differ in accuracy by training noise alone, which nobody can predict. For
each table, both reference points of the hypervolume, and 95 and 99 % of the true front's:

- `any`: the fewest cells that reach it, all values known (dynamic programming over the true front). No search needs fewer.
- `known means`: the validations of a searcher that knows everything but the noise, median and quartiles of SEEDS draws. In
  each draw every cell is trained anew: its accuracy is normal around the mean of its function's cells. The searcher knows
  these means, the noise's standard deviation and all latencies. It always validates the cell with the greatest expected
  improvement of the hypervolume (in closed form), each cell once, until it has that share of the draw's own true front.

The noise's variance is that within functions, pooled over the NEAREST functions of several cells and similar mean.

What this leaves out. The searcher has nothing to learn and is told which reference point counts; a real one has to learn
means and latencies from the same validations. The means of functions with one cell contain that training's noise, so they
differ a little more than expected accuracies do, and good ones are easier to tell. In these respects the figures are too low
for a real search. In one they are too high: the order is greedy, and one that looks further ahead could need fewer.
"""

import csv
from pathlib import Path

import cells
import numpy as np
import problems
import runs
import yardstick
from scipy.special import ndtr
from table import line

RESULTS = Path(__file__).parent / "results"
LINAS = RESULTS / "linas.csv"
DEVICES = ("1080ti_1", "fpga", "gold_6226", "pixel3", "raspi4", "titan_rtx_256")
TARGETS = (95, 99)
SEEDS, NEAREST, MOST, AHEAD = 10, 200, 120, 256
COLUMNS = ("problem", "reference", "target", "any", "low", "median", "high", "linas", "linas_seeds")


def noise(values, functions):
    """Returns for each function the mean of its cells, and the standard deviation of a training's noise."""
    number = np.bincount(functions)
    mean = np.bincount(functions, values) / number
    squares = np.bincount(functions, (values - mean[functions]) ** 2)
    several = np.flatnonzero(number > 1)
    order = several[np.argsort(mean[several], kind="stable")]
    ranks = np.searchsorted(mean[order], mean)
    first = np.clip(ranks - NEAREST // 2, 0, max(len(order) - NEAREST, 0))
    last = np.minimum(first + NEAREST, len(order))
    sums = np.append(0, np.cumsum(squares[order]))
    degrees = np.append(0, np.cumsum(number[order] - 1))
    return mean, np.sqrt((sums[last] - sums[first]) / (degrees[last] - degrees[first]))


def improvement(mean, deviation, latency, front, reference):
    """Returns the expected improvement of the hypervolume by cells of known latency and normal accuracy, all minimised.

    A cell improves on what is known at every latency from its own to the reference's: `front` are non-dominated points.
    """
    front = front[np.argsort(front[:, 1])]
    edges = np.append(front[:, 1], reference[1])
    known = np.append(reference[0], front[:, 0])
    # The strip between two edges, as far as it is at the cell's latency or beyond.
    start = np.append(-np.inf, front[:, 1])
    widths = np.maximum(edges - np.maximum(start, latency[:, None]), 0)
    deviation = np.maximum(deviation, 1e-9)[:, None]
    z = (known - mean[:, None]) / deviation
    gains = deviation * (z * ndtr(z) + np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi))
    return (widths * gains).sum(1)


def validated(values, mean, deviation, reference, number):
    """Returns the rows that the searcher validates, in order; `values` are accuracies and latencies, minimised.

    No cell's expected improvement grows as the front does. So its value for an earlier front is an upper bound, and only
    the cells with the greatest bounds have to be computed anew.
    """
    bounds = improvement(mean, deviation, values[:, 1], np.zeros((0, 2)), reference)
    front, rows = np.zeros((0, 2)), []
    while len(rows) < number:
        while True:
            ahead = np.argpartition(-bounds, AHEAD)[: AHEAD + 1] if len(bounds) > AHEAD + 1 else np.arange(len(bounds))
            rest = bounds[ahead].min() if len(bounds) > AHEAD + 1 else -np.inf
            exact = improvement(mean[ahead], deviation[ahead], values[ahead, 1], front, reference)
            bounds[ahead] = np.where(np.isneginf(bounds[ahead]), -np.inf, exact)
            best = ahead[bounds[ahead].argmax()]
            if bounds[best] >= rest:
                break
        rows.append(best)
        bounds[best] = -np.inf
        if (values[best] < reference).all() and not (front <= values[best]).all(1).any():
            front = np.concatenate([front[~(values[best] <= front).all(1)], values[None, best]])
    return np.array(rows)


def fewest(front, reference, share):
    """Returns the least number of points of a front of two objectives with that share of its hypervolume."""
    front = front[(front < reference).all(1)]
    front = front[np.argsort(front[:, 1])]
    heights, places = reference[0] - front[:, 0], front[:, 1]
    wanted = share * yardstick.volume(front, reference)
    # best[j]: the most volume from place j to the reference with so many points, of which j is the first.
    best = heights * (reference[1] - places)
    more = np.where(places[None] > places[:, None], heights[:, None] * (places[None] - places[:, None]), -np.inf)
    for number in range(1, len(front) + 1):
        if best.max() >= wanted * (1 - 1e-12):
            return number
        best = np.maximum(best, (more + best).max(1))
    raise ValueError("no subset reaches that share")


def needed(problem, functions, by):
    """Returns {target: validations of every draw} of a searcher with known means."""
    values, reference, found = problem.true(problem.archs), problem.references[by], {target: [] for target in TARGETS}
    mean, deviation = (each[functions] for each in noise(values[:, 0], functions))
    for seed in range(SEEDS):
        drawn = np.stack([np.random.default_rng(seed).normal(mean, deviation), values[:, 1]], 1)
        unit = yardstick.volume(drawn, reference) / 100
        rows = validated(drawn, mean, deviation, reference, MOST)
        score = yardstick.curve(lambda points: yardstick.volume(points, reference), drawn[rows], drawn[rows], 0.0) / unit
        for target in TARGETS:
            found[target].append(yardstick.first(np.arange(1, len(rows) + 1), score, target))
    return found


def third(curves, target):
    """Formats a third of the median of LINAS's validations; a lower bound where not every run reached the target."""
    if not len(curves):
        return "–"
    reached = np.array([yardstick.first(*curve, target) for curve in curves])
    median = np.median(reached)
    most = min(numbers.max() for numbers, _ in curves)
    return f"{median / 3:.0f}" if np.isfinite(median) else f"> {most / 3:.0f}"


def compute(path):
    """Writes the bound of every table."""
    linas = {(name, by, seed): curve for (_, name), seeds in runs.scored(LINAS).items()
             for seed, known in seeds.items() for by, curve in known.items()}  # fmt: skip
    functions = None
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for name in (f"nb201:{data}:{device}" for data in problems.DATASETS for device in DEVICES):
            problem = problems.create(name)
            functions = cells.functions(problem.archs) if functions is None else functions
            for by, reference in problem.references.items():
                curves = [curve for key, curve in linas.items() if key[:2] == (name, by)]
                for target, found in needed(problem, functions, by).items():
                    least = fewest(problem.front, reference, target / 100)
                    low, middle, high = np.quantile(found, (0.25, 0.5, 0.75), method="higher")
                    writer.writerow([name, by, target, least, f"{low:.0f}", f"{middle:.0f}", f"{high:.0f}",
                                     third(curves, target), len(curves)])  # fmt: skip
            file.flush()


def show(path):
    """Prints a line for each table: fewest cells; known means [quartiles]; a third of LINAS's validations."""
    found: dict = {}
    for row in runs.lines(path):
        cell = f"{row['any']}; {row['median']} [{row['low']}, {row['high']}]; {row['linas']}"
        found.setdefault(row["problem"], {})[f"{row['reference']}, to {row['target']} %"] = cell
    columns = list(next(iter(found.values())))
    line("", *columns)
    line(*["---"] * (1 + len(columns)))
    for name, cells_of in found.items():
        line(name.removeprefix("nb201:"), *(cells_of[column] for column in columns))


if __name__ == "__main__":
    compute(RESULTS / "bound.csv")
    show(RESULTS / "bound.csv")
