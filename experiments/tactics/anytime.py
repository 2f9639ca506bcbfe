"""Anytime curves of tactics and rivals: how good the front is after each number of validations.

    python experiments/tactics/anytime.py RESULTS.csv [OTHERS.csv …] --methods 'linas random nasjax:ehvi' --problems macro

Every finished run (a method on a problem with a seed) is appended to RESULTS.csv. Runs that are in the file are skipped;
without `--methods` none are made. Then medians and quartiles of all files are printed, and the number of validations that
reach `--target`: a share of the true hypervolume, or `METHOD@NUMBER`, the median of a method after that number of
validations.

A front is selected by measured values, noise included, and scored by the hypervolume of its true values, so luck with noise
earns nothing. `in_band` is the true accuracy of the network with the best measured accuracy among those in problems.BAND.

Methods: the rivals of rivals.py by name; nasjax's tactics as `nasjax:TACTIC,setting=value,…`. The settings `predictor` and
`algorithm` name these; `warm=PROBLEM` is a warm start from the same search of another problem (EARLIER validations, the same
seed); all others are settings of the tactic.
"""

import argparse
import csv
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter

import jax
import numpy as np
import problems
import yaml

from nasjax.algorithms import ALGORITHMS
from nasjax.pareto import hypervolume_exact, non_dominated_exact
from nasjax.predictors import PREDICTORS
from nasjax.registry import settings
from nasjax.tactics import TACTICS, Problem, Warm
from nasjax.tactics.predicting import rank_order

CHECKPOINTS = (10, 20, 30, 50, 75, 100, 150, 200, 250, 300, 400, 500, 800, 1000)
"""Numbers of validations at which results are printed."""


def written(k):
    """Whether results have a row after `k` validations: every fifth up to 100, tenth up to 300, fiftieth beyond."""
    return k % (5 if k <= 100 else 10 if k <= 300 else 50) == 0


EARLIER = 200
"""Validations of the search that a warm start uses."""

COLUMNS = ("method", "problem", "seed", "evaluations", "hypervolume", "in_band", "seconds")


# -- one run --------------------------------------------------------------------------------------------------------------


def nasjax_tactic(words, benchmark, evaluations, seed):
    """Runs one of nasjax's tactics, `TACTIC,setting=value,…`: returns architectures and values in order of measurement."""
    name, *pairs = words.split(",")
    chosen = {key: yaml.safe_load(value) for key, value in (pair.split("=", 1) for pair in pairs)}
    earlier = chosen.pop("warm", None)
    predictor = settings("predictor", PREDICTORS, chosen.pop("predictor", "gaussian_process"))
    algorithm = settings("algorithm", ALGORITHMS, chosen.pop("algorithm", "nsga2"))
    tactic = settings("tactic", TACTICS, {"name": name, **chosen})
    unlimited = ((-np.inf, np.inf),) * len(benchmark.costs)
    warm = None
    if earlier is not None:
        cold = ",".join([name, *(pair for pair in pairs if not pair.startswith("warm="))])
        archs, values = _earlier(cold, earlier, seed)
        order = np.asarray(rank_order(values))
        warm = Warm(archs[order], values[order])
    problem = Problem(benchmark.space, evaluations, benchmark.costs, algorithm, predictor, benchmark.reference, unlimited,
                      benchmark.inputs, warm=warm)  # fmt: skip
    state = tactic.init(jax.random.key(seed), problem)
    archs, values = np.zeros((0, len(benchmark.space.genes)), np.int32), np.zeros((0, len(benchmark.costs)))
    while len(archs) < evaluations:
        asked, state = tactic.ask(state)
        asked = np.asarray(asked, np.int32)[: evaluations - len(archs)]
        if not len(asked):
            break
        found = benchmark.measure(asked, seed)
        state = tactic.tell(state, asked, found)
        archs, values = np.concatenate([archs, asked]), np.concatenate([values, found])
    return archs, values


@cache
def _earlier(words, name, seed):
    return nasjax_tactic(words, problems.create(name), EARLIER, seed)


def run(method, name, seed, evaluations):
    """Runs a method and returns the rows of its results."""
    benchmark, began = problems.create(name), perf_counter()
    if method.startswith("nasjax:"):
        archs, values = nasjax_tactic(method.removeprefix("nasjax:"), benchmark, evaluations, seed)
    else:
        # Imported here, so that the rivals' packages are needed only to run rivals.
        from rivals import RIVALS

        archs, values = RIVALS[method](benchmark, evaluations, seed)
    seconds = perf_counter() - began
    true = benchmark.true(archs)
    # Rivals do not use the reference point: one run serves the same problem with other reference points.
    same = [name] if method.startswith("nasjax:") else problems.twins(name)
    points = {twin: problems.create(twin).reference for twin in same}
    checkpoints = [k for k in range(1, evaluations + 1) if written(k) or k == evaluations]
    return [
        (method, twin, seed, k, volume(values[:k], true[:k], point), in_band(values[:k], true[:k]), f"{seconds:.1f}")
        for twin, point in points.items()
        for k in checkpoints
    ]


def volume(measured, true, reference):
    """Returns the hypervolume of the true values of the rows that are non-dominated by measured values."""
    if measured.shape[1] > 2:
        return hypervolume_exact(true[non_dominated_exact(measured)], reference)
    order = np.lexsort(measured.T[::-1])
    best = np.minimum.accumulate(measured[order, 1])
    front = true[order[np.concatenate([[True], measured[order[1:], 1] < best[:-1]])]]
    front = front[(front < reference).all(1)]
    front = front[np.lexsort(front.T[::-1])]
    heights = np.minimum.accumulate(np.concatenate([[reference[1]], front[:, 1]]))
    return float(((reference[0] - front[:, 0]) * (heights[:-1] - heights[1:])).sum())


def in_band(measured, true):
    """Returns the true accuracy of the row with the best measured accuracy in problems.BAND; NaN if there is none."""
    low, high = problems.BAND
    inside = (true[:, 1] >= low) & (true[:, 1] <= high)
    return float(-true[np.where(inside, measured[:, 0], np.inf).argmin(), 0]) if inside.any() else float("nan")


# -- many runs ------------------------------------------------------------------------------------------------------------


def read(path):
    """Reads {(method, problem): {seed: arrays of evaluations, hypervolume and in_band}}; later rows replace earlier ones."""
    runs = {}
    if path.is_file():
        with path.open(newline="") as file:
            for row in csv.DictReader(file):
                lines = runs.setdefault((row["method"], row["problem"]), {}).setdefault(int(row["seed"]), {})
                lines[int(row["evaluations"])] = float(row["hypervolume"]), float(row["in_band"])
    return {
        key: {seed: np.array([(k, *lines[k]) for k in sorted(lines)]).T for seed, lines in seeds.items()}
        for key, seeds in runs.items()
    }


def run_all(path, methods, names, seeds, evaluations, jobs):
    """Makes the runs that are not in `path`, and appends each when it is finished."""
    done = read(path)
    todo = [
        (method, name, seed, evaluations)
        for name in names
        for method in methods
        for seed in seeds
        if done.get((method, name), {}).get(seed, np.zeros((1, 1)))[0].max() < evaluations
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.is_file():
        path.write_text(",".join(COLUMNS) + "\n")

    def keep(rows):
        with path.open("a", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows(rows)
        print(*rows[-1], sep="  ", flush=True)

    if jobs == 1:
        for task in todo:
            keep(run(*task))
        return
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        for future in as_completed([pool.submit(run, *task) for task in todo]):
            keep(future.result())


# -- tables ---------------------------------------------------------------------------------------------------------------


def goal(target, name, runs):
    """Returns the hypervolume to reach: a share of the true front's, or a method's median (`METHOD@NUMBER`)."""
    if "@" not in target:
        return float(target) * problems.create(name).best
    method, number = target.split("@")
    values = [volumes[numbers == int(number)] for numbers, volumes, _ in runs.get((method, name), {}).values()]
    return float(np.median(np.concatenate(values))) if values else float("nan")


def quartiles(values, digits):
    """Formats median [lower, upper quartile]; with infinite values without interpolation, a dash for infinity."""
    found = np.quantile(values, (0.5, 0.25, 0.75), method="linear" if np.isfinite(values).all() else "higher")
    median, low, high = (f"{value:.{digits}f}" if np.isfinite(value) else "–" for value in found)
    return f"{median} [{low}, {high}]"


def joined(paths):
    """Reads the runs of several files."""
    runs = {}
    for path in paths:
        for key, seeds in read(path).items():
            runs.setdefault(key, {}).update(seeds)
    return runs


def show(paths, target):
    """Prints medians and quartiles of all runs, and the validations to the target."""
    runs = joined(paths)
    for name in dict.fromkeys(name for _, name in runs):
        unit = problems.create(name).best / 100
        wanted = goal(target, name, runs) if target else float("nan")
        words = f"; target {target}: {wanted / unit:.2f}" if target else ""
        print(f"\n{name}: hypervolume, % of the true front's, or of the best known{words}")
        for (method, problem), seeds in runs.items():
            if problem != name:
                continue
            print(f"  {method} ({len(seeds)} seeds)")
            for k in CHECKPOINTS:
                at = [volumes[numbers == k][0] for numbers, volumes, _ in seeds.values() if k in numbers]
                band = [inside[numbers == k][0] for numbers, _, inside in seeds.values() if k in numbers]
                band = [value for value in band if np.isfinite(value)]
                if at:
                    print(
                        f"    {k:5d}  {quartiles(np.array(at) / unit, 2)}"
                        + (f"   in band {quartiles(band, 3)}" if band else "")
                    )
            if target:
                first = [numbers[volumes >= wanted].min(initial=np.inf) for numbers, volumes, _ in seeds.values()]
                print(f"    to target: {quartiles(first, 0)}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("others", type=Path, nargs="*")
    parser.add_argument("--methods", default="", help="separated by blanks")
    parser.add_argument("--problems", default="surrogate_blend", help="separated by commas; * stands for any letters")
    parser.add_argument("--seeds", default="0-9", help="0-9, or 0,3,5")
    parser.add_argument("--evaluations", type=int, default=500)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--target", default="", help="0.99, or linas@500")
    arguments = parser.parse_args()
    first, _, last = arguments.seeds.partition("-")
    seeds = range(int(first), int(last) + 1) if last else [int(seed) for seed in first.split(",")]
    names = [name for pattern in arguments.problems.split(",") for name in problems.matching(pattern)]
    run_all(arguments.results, arguments.methods.split(), names, seeds, arguments.evaluations, arguments.jobs)
    show([arguments.results, *arguments.others], arguments.target)


if __name__ == "__main__":
    main()
