"""Anytime curves of tactics and rivals: how good the front is after each number of validations.

    python experiments/tactics/anytime.py RUNS.csv [OTHERS.csv …] --methods 'linas random nasjax:ehvi' --problems macro

Every finished run (a method on a problem with a seed) is appended to RUNS.csv, with the networks that it measured (runs.py).
Runs that are in the file are skipped; without `--methods` none are made. Then medians and quartiles of all files are printed
by one of the yardsticks of yardstick.py, and the number of validations that reach `--target`: a share of the true front's
hypervolume, or `METHOD@NUMBER`, the median of a method after that number of validations. For surrogates of Once-for-All
`in band` is the true accuracy of the network with the best measured accuracy among those in problems.BAND.

Methods: the rivals of rivals.py by name; nasjax's tactics as `nasjax:TACTIC,setting=value,…`. The settings `predictor` and
`algorithm` name these; `warm=PROBLEM` is a warm start from the same search of another problem (EARLIER validations, the same
seed); `aim=tight` and `aim=loose` tell the tactic that reference point, which is not known otherwise
(`benchmarks.Benchmark.told`); all others are settings of the tactic.
"""

import argparse
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter

import jax
import numpy as np
import problems
import runs
import yaml
import yardstick

import benchmarks
from nasjax.algorithms import ALGORITHMS
from nasjax.errors import ConfigError
from nasjax.predictors import PREDICTORS
from nasjax.registry import settings
from nasjax.tactics import TACTICS, Problem, Warm
from nasjax.tactics.predicting import rank_order

CHECKPOINTS = (10, 20, 30, 50, 75, 100, 150, 200, 250, 300, 400, 500, 800, 1000)
"""Numbers of validations at which results are printed."""


EARLIER = 200
"""Validations of the search that a warm start uses."""


# -- one run --------------------------------------------------------------------------------------------------------------


def chosen(words):
    """What `TACTIC,setting=value,…` chooses: tactic, algorithm, predictor, the warm start's problem, the aim (or None)."""
    name, *pairs = words.split(",")
    if wrong := [pair for pair in pairs if "=" not in pair]:
        raise ConfigError(f"{wrong[0]!r} of nasjax:{words} is no setting=value; blanks separate methods")
    values = {key: yaml.safe_load(value) for key, value in (pair.split("=", 1) for pair in pairs)}
    earlier, aim = values.pop("warm", None), values.pop("aim", None)
    predictor = settings("predictor", PREDICTORS, values.pop("predictor", "gaussian_process"))
    algorithm = settings("algorithm", ALGORITHMS, values.pop("algorithm", "nsga2"))
    return settings("tactic", TACTICS, {"name": name, **values}), algorithm, predictor, earlier, aim


def nasjax_tactic(words, benchmark, evaluations, seed):
    """Runs one of nasjax's tactics (`chosen`): returns architectures and values in order of measurement."""
    tactic, algorithm, predictor, earlier, aim = chosen(words)
    reference = benchmark.told if aim is None else benchmark.references[aim]
    limits = ((-np.inf, np.inf),) * len(benchmark.objectives) + tuple((-np.inf, limit) for limit in benchmark.limits)
    warm = None
    if earlier is not None:
        cold = ",".join(word for word in words.split(",") if not word.startswith("warm="))
        archs, values = _earlier(cold, earlier, seed)
        order = np.asarray(rank_order(values))
        warm = Warm(archs[order], values[order])
    problem = Problem(benchmark.space, evaluations, benchmark.costs, algorithm, predictor, reference, limits,
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


def check(method):
    """Raises ValueError for a method that there is not."""
    if method.startswith("nasjax:"):
        chosen(method.removeprefix("nasjax:"))
        return
    # Imported here, as in `run`.
    from rivals import RIVALS

    if method not in RIVALS:
        raise ValueError(f"no method is named {method!r}; there are nasjax:TACTIC and {', '.join(RIVALS)}")


def run(method, name, seed, evaluations):
    """Runs a method and returns what is stored."""
    benchmark, began = problems.create(name), perf_counter()
    if method.startswith("nasjax:"):
        archs, _ = nasjax_tactic(method.removeprefix("nasjax:"), benchmark, evaluations, seed)
    else:
        # Imported here, so that the rivals' packages are needed only to run rivals.
        from rivals import RIVALS

        archs, _ = RIVALS[method](benchmark, evaluations, seed)
    rows = benchmarks.numbers(archs, benchmark.space.counts)
    return runs.Run(evaluations, perf_counter() - began, runs.package(method), tuple(rows))


# -- many runs ------------------------------------------------------------------------------------------------------------


def run_all(path, methods, names, seeds, evaluations, jobs):
    """Makes the runs that are not in `path`, and appends each when it is finished."""
    done = runs.read(path)
    wanted = {(method, name if runs.AIM in method else problems.base(name)): None for name in names for method in methods}
    todo = [
        (*key, seed, evaluations)
        for key in wanted
        for seed in seeds
        if seed not in done.get(key, {}) or done[key][seed].evaluations < evaluations
    ]

    def keep(method, name, seed, made):
        runs.append(path, method, name, seed, made)
        print(method, name, seed, f"{len(made.rows)} validations", f"{made.seconds:.1f} s", sep="  ", flush=True)

    if jobs == 1:
        for task in todo:
            keep(*task[:3], run(*task))
        return
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        made = {pool.submit(run, *task): task[:3] for task in todo}
        for future in as_completed(made):
            keep(*made[future], future.result())


# -- tables ---------------------------------------------------------------------------------------------------------------


def goal(target, name, found, by):
    """Returns the score to reach, in %: a share of the true front's, or a method's median (`METHOD@NUMBER`)."""
    if "@" not in target:
        return 100 * float(target)
    method, number = target.split("@")
    values = at([curves[by] for curves in found.get((method, name), {}).values() if by in curves], int(number))
    return float(np.median(values)) if values else float("nan")


def at(curves, number):
    """Returns the score of every curve that has one after `number` validations."""
    return [values[numbers == number][0] for numbers, values in curves if number in numbers]


def quantiles(values, shares=0.5):
    """Returns quantiles, by default the median; with infinite values without interpolation."""
    return np.quantile(values, shares, method="linear" if np.isfinite(values).all() else "higher")


def quartiles(values, digits):
    """Formats median [lower, upper quartile]; a dash for infinity."""
    found = quantiles(values, (0.5, 0.25, 0.75))
    median, low, high = (f"{value:.{digits}f}" if np.isfinite(value) else "–" for value in found)
    return f"{median} [{low}, {high}]"


def show(paths, target, by):
    """Prints medians and quartiles of all runs by one yardstick, and the validations to the target."""
    found = runs.joined(paths)
    for name in dict.fromkeys(name for _, name in found):
        wanted = goal(target, name, found, by) if target else float("nan")
        words = f"; target {target}: {wanted:.2f}" if target else ""
        print(f"\n{name}: {by}, %{words}")
        for (method, problem), seeds in found.items():
            curves = [known[by] for known in seeds.values() if by in known]
            if problem != name or not curves:
                continue
            print(f"  {method} ({len(curves)} seeds)")
            bands = [known["in_band"] for known in seeds.values() if "in_band" in known]
            for k in CHECKPOINTS:
                band = [value for value in at(bands, k) if np.isfinite(value)]
                if scores := at(curves, k):
                    print(f"    {k:5d}  {quartiles(scores, 2)}" + (f"   in band {quartiles(band, 3)}" if band else ""))
            if target:
                print(f"    to target: {quartiles([yardstick.first(*curve, wanted, by) for curve in curves], 0)}")


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
    parser.add_argument("--yardstick", choices=("loose", "tight", "epsilon"), default="loose")
    arguments = parser.parse_args()
    first, _, last = arguments.seeds.partition("-")
    seeds = range(int(first), int(last) + 1) if last else [int(seed) for seed in first.split(",")]
    methods = arguments.methods.split()
    try:
        names = [name for pattern in arguments.problems.split(",") for name in problems.matching(pattern)]
        for method in methods:
            check(method)
    except ValueError as error:
        parser.error(str(error))
    if methods:
        run_all(arguments.results, methods, names, seeds, arguments.evaluations, arguments.jobs)
    show([arguments.results, *arguments.others], arguments.target, arguments.yardstick)


if __name__ == "__main__":
    main()
