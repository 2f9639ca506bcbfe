"""Files of runs: one line a run, with the measured networks, so that any yardstick can be computed afterwards.

`rows` are the measured networks as numbers (`benchmarks.numbers`), in order; those of rivals are distinct, as a rival that
asks for a network again is given its values for nothing. One that finds nothing new for long ends below its budget
(`rivals.PATIENCE`), and keeps its last score from there on. Measured values are not stored, since they follow from network
and seed (`Benchmark.measure`). `evaluations` is the budget; `version` names the package that did the search. A later line
replaces an earlier one of the same method, problem and seed.

Older files, with a line for each checkpoint, hold hypervolumes only: they are scored with the loose reference alone, at the
checkpoints that they have. nasjax's tactics and qNEHVI were told that reference then: they are read as `METHOD,aim=loose`.
"""

import csv
from importlib.metadata import version
from typing import NamedTuple

import numpy as np
import problems
import yardstick

import benchmarks

COLUMNS = ("method", "problem", "seed", "evaluations", "seconds", "version", "rows")

PACKAGES = {"nasjax": "nasjax", "linas": "scikit-learn", "nsga2": "pymoo", "optuna": "optuna", "qnehvi": "botorch",
            "weaknas": "xgboost", "random": "numpy", "smac": "smac", "lamoo": "botorch"}  # fmt: skip
"""The package that does the search, by the first word of a method."""

AIM = ",aim="


class Run(NamedTuple):
    evaluations: int
    seconds: float
    version: str
    rows: tuple[int, ...]


def package(method):
    """Returns name and version of the package that does a method's search."""
    name = PACKAGES[method.replace(":", "_").split("_")[0]]
    return f"{name} {version(name)}"


def append(path, method, problem, seed, run):
    """Appends a run to a file, which is begun if it does not exist."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = not path.is_file()
    with path.open("a", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        if new:
            writer.writerow(COLUMNS)
        writer.writerow([method, problem, seed, run.evaluations, f"{run.seconds:.1f}", run.version,
                         " ".join(map(str, run.rows))])  # fmt: skip


def lines(path):
    """Returns the rows of a file as dicts; none if there is no file."""
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def read(path):
    """Reads {(method, problem): {seed: Run}}. Raises ValueError for an older file."""
    found = {}
    for line in lines(path):
        if "rows" not in line:
            raise ValueError(f"{path} holds hypervolumes instead of measured networks: write to a new file")
        run = Run(int(line["evaluations"]), float(line["seconds"]), line["version"], tuple(map(int, line["rows"].split())))
        found.setdefault((line["method"], line["problem"]), {})[int(line["seed"])] = run
    return found


# -- scored ---------------------------------------------------------------------------------------------------------------


def served(method, name):
    """Returns the problems that a run serves: without an aim the same run has several reference points."""
    return [name] if AIM in method else problems.twins(name)


def scored(path, names=problems.NAMES):
    """Reads {(method, problem): {seed: {yardstick: (numbers of validations, scores in %)}}} from a file of either kind.

    Only of the problems `names`. `in_band` is an accuracy, and only of surrogates of Once-for-All.
    """
    found = lines(path)
    if found and "rows" not in found[0]:
        return _hypervolumes([line for line in found if line["problem"] in names])
    scores = {}
    for (method, problem), seeds in read(path).items():
        for name in (twin for twin in served(method, problem) if twin in names):
            for seed, run in seeds.items():
                archs = benchmarks.architectures(run.rows, problems.create(name).space.counts)
                scores.setdefault((method, name), {})[seed] = score(problems.create(name), archs, seed, run.evaluations)
    return scores


def score(problem, archs, seed, budget):
    """Returns {yardstick: (numbers of validations, scores)} of the networks that a run measured, in order.

    A run that ended before its `budget` was spent keeps its last score.
    """
    measured, true = (problem.feasible(values) for values in (problem.measure(archs, seed), problem.true(archs)))
    found = yardstick.curves(problem, measured, true)
    if problem.name.startswith("surrogate"):
        found["in_band"] = yardstick.in_band(measured, true, problems.BAND)
    number = max(len(archs), budget)
    return {
        name: (np.arange(1, number + 1), np.pad(values, (0, number - len(values)), mode="edge"))
        for name, values in found.items()
    }


def _hypervolumes(found):
    runs = {}
    for line in found:
        method = line["method"] + (AIM + "loose" if line["method"].startswith(("nasjax:", "qnehvi")) else "")
        seeds = runs.setdefault((method, line["problem"]), {})
        # Later lines replace earlier ones.
        values = float(line["hypervolume"]), float(line["in_band"])
        seeds.setdefault(int(line["seed"]), {})[int(line["evaluations"])] = values
    scores = {}
    for (method, name), seeds in runs.items():
        unit = problems.create(name).best["loose"] / 100
        for seed, values in seeds.items():
            after, (volumes, inside) = np.array(sorted(values)), np.array([values[k] for k in sorted(values)]).T
            known = {"loose": (after, volumes / unit), "in_band": (after, inside)}
            scores.setdefault((method, name), {})[seed] = known
    return scores


def joined(paths, names=problems.NAMES):
    """Reads the scores of several files; a run of a later file replaces the same run of an earlier one."""
    scores = {}
    for path in paths:
        for key, seeds in scored(path, names).items():
            scores.setdefault(key, {}).update(seeds)
    return scores
