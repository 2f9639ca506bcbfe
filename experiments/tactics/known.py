"""Finds the best known fronts of the surrogates, which stand for their true ones: results/known.csv.

    python experiments/tactics/known.py [PROBLEM …]        # a few minutes each

The non-dominated ones of: everything that pymoo's NSGA-II (population 256) finds with EVALUATIONS noise-free values, the
front known before, and single-gene changes of these until none is better. Run again with another SEED to go on.
"""

import sys
from dataclasses import replace
from time import perf_counter

import numpy as np
import problems
import runs
import yardstick
from rivals import nsga2

import benchmarks
from nasjax.pareto import non_dominated_exact

EVALUATIONS, POPULATION, SEED = 76_800, 256, 0
SURROGATES = ("surrogate_blend", "surrogate_trees", "translation")


def front(problem, archs):
    """Returns the non-dominated ones of distinct architectures, one for each point of the front."""
    archs = np.unique(archs, axis=0)
    values = problem.true(archs)
    rows = np.flatnonzero(non_dominated_exact(values))
    return archs[rows[np.unique(values[rows], axis=0, return_index=True)[1]]]


def neighbours(space, archs):
    """Returns all architectures that differ from one of `archs` in one gene."""
    found = [archs]
    for gene, count in enumerate(space.counts):
        for option in range(count):
            changed = archs.copy()
            changed[:, gene] = option
            found.append(changed)
    return np.unique(space.canonical(np.concatenate(found)), axis=0)


def improved(problem, archs):
    """Returns the front of architectures and of single-gene changes of its networks, repeated until nothing is better."""
    best, searched = front(problem, archs), set()
    while new := [arch for arch in best if arch.tobytes() not in searched]:
        searched |= {arch.tobytes() for arch in new}
        best = front(problem, np.concatenate([best, neighbours(problem.space, np.array(new))]))
    return best


def main():
    for name in sys.argv[1:] or SURROGATES:
        began, problem = perf_counter(), replace(problems.create(name), noise=(0.0, 0.0))
        found = [problem.known, nsga2(problem, EVALUATIONS, SEED, POPULATION)[0]]
        best = improved(problem, np.concatenate(found))
        run = runs.Run(EVALUATIONS, perf_counter() - began, runs.package("nsga2"),
                       benchmarks.numbers(best, problem.space.counts))  # fmt: skip
        runs.append(problems.FRONTS, "nsga2", name, SEED, run)
        point = problem.references["loose"]
        print(name, len(best), "networks", yardstick.volume(problem.true(best), point), problems.KNOWN[name], flush=True)


if __name__ == "__main__":
    main()
