"""One step of a tactic: 20,000 predicted evaluations as DyNAS-T does them, by pymoo in batches, and by one jitted scan.

    pip install pymoo && python benchmarks/step.py
    python benchmarks/step.py --device gpu          # the scan alone

All evaluate two support vector machines (RBF, one-hot inputs, up to 250 networks of Once-for-All's MobileNetV3) and run
NSGA-II with a population of 50 for 400 generations. On a CPU the machines are scikit-learn's, fitted to random networks, and
all three ways run in turn, on one core; on an accelerator their numbers are random. Times exclude compilation. The last line
is a million predicted evaluations in one scan (population 1,000).
"""
# ruff: noqa: E402

import os
import sys

ON_CPU = "gpu" not in sys.argv
if ON_CPU:
    os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"
    os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"

import argparse
from statistics import median
from time import perf_counter

import jax
import jax.numpy as jnp
import numpy as np

from nasjax.algorithms import NSGA2
from nasjax.algorithms.evolve import evolve
from nasjax.pareto import hypervolume_exact
from nasjax.space import Gene, SearchSpace

POPULATION, GENERATIONS, NETWORKS = 50, 400, 250
KERNELS, EXPANDS, DEPTHS = (3, 5, 7), (3, 4, 6), (2, 3, 4)
GENES = (("ks", KERNELS, 20), ("e", EXPANDS, 20), ("d", DEPTHS, 5))
"""Once-for-All's MobileNetV3 as DyNAS-T writes it: lists of 20, 20 and 5 numbers."""

COUNTS = tuple(len(options) for _, options, number in GENES for _ in range(number))
SPACE = SearchSpace(tuple(Gene(f"{name}_{i}", options) for name, options, number in GENES for i in range(number)))
REFERENCE = np.array([7.0, 7.0])
"""Of the hypervolume, beyond the worst values, so that the extremes count."""


def one_hot(archs):
    """A column for each option of each gene, as all genes have equally many."""
    return (archs[:, :, None] == np.arange(COUNTS[0])).reshape(len(archs), -1).astype(np.float32)


def corners(archs):
    """The three options of each gene as corners of a triangle in two columns, with product 1 of equal ones, else -1/2."""
    archs = jnp.asarray(archs)
    side = jnp.where(archs == 1, 1, jnp.where(archs == 2, -1, 0)) * np.sqrt(3) / 2
    return jnp.concatenate([jnp.where(archs == 0, 1.0, -0.5), side], 1)


def shared_arrays(models, archs):
    """Machines fitted to the same networks, as arrays: these networks (`corners`), the machines' weights, the intercepts."""
    weights = np.zeros((len(archs), len(models)), np.float32)
    for column, model in enumerate(models):
        weights[model.support_, column] = model.dual_coef_[0]
    return (
        corners(archs),
        jnp.asarray(weights),
        jnp.asarray([model.intercept_[0] for model in models], np.float32),
    )


def predicted(machines, archs):
    """The machines' predictions, jittable; one kernel serves all.

    A squared distance of one-hot rows is twice the number of genes that differ, and so 4/3 of what products of corners lack.
    """
    known, weights, intercepts = machines
    return jnp.exp((corners(archs) @ known.T - len(COUNTS)) * (4 / 3 / sum(COUNTS))) @ weights + intercepts


def by_scan(models, seed, population=POPULATION, generations=GENERATIONS):
    state = evolve(NSGA2(population=population), SPACE, predicted, models, jax.random.key(seed), generations)
    return np.asarray(jax.block_until_ready(state).objectives)


def random_arrays(key):
    """Arrays like those of two machines, of random numbers."""
    archs, weights = jax.random.split(key)
    return corners(SPACE.sample(archs, NETWORKS)), jax.random.normal(weights, (NETWORKS, 2)), jnp.zeros(2)


def compare(rounds):
    """Times all three ways in turn, and prints how they compare; returns the machines as arrays."""
    from step_rivals import Batched, OneByOne, by_pymoo, machines

    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    models, fitted_to = machines(0)
    arrays = shared_arrays(models, fitted_to)
    archs = np.asarray(SPACE.sample(jax.random.key(9), 100))
    predictions = np.stack([model.predict(one_hot(archs)) for model in models], 1)
    difference = np.abs(predictions - predicted(arrays, archs)).max()
    print(f"largest difference between scikit-learn's predictions and ours: {difference:.1e}")
    ways = {
        "as DyNAS-T": lambda seed: by_pymoo(OneByOne(models), seed),
        "pymoo, batched": lambda seed: by_pymoo(Batched(models), seed),
        "one scan": lambda seed: by_scan(arrays, seed),
    }
    by_scan(arrays, 0)
    seconds, volumes = {name: [] for name in ways}, {name: [] for name in ways}
    for seed in range(rounds):
        for name, way in ways.items():
            began = perf_counter()
            objectives = way(seed)
            seconds[name].append(perf_counter() - began)
            volumes[name].append(hypervolume_exact(objectives, REFERENCE))
    for name, spent in seconds.items():
        ratios = [other / own for other, own in zip(spent, seconds["one scan"], strict=True)]
        print(f"{name:15} {median(spent):7.3f} s [{min(spent):.3f}, {max(spent):.3f}]   {median(ratios):6.1f} times a scan's"
              f"   hypervolume {median(volumes[name]):.2f}")  # fmt: skip
    return arrays


def show_scan(arrays, rounds, population, generations):
    """Prints the seconds of a scan, and of the first one, with its compilation."""
    began = perf_counter()
    by_scan(arrays, 0, population, generations)
    first, times = perf_counter() - began, []
    for seed in range(1, rounds + 1):
        began = perf_counter()
        by_scan(arrays, seed, population, generations)
        times.append(perf_counter() - began)
    spread = f"[{min(times):.4f}, {max(times):.4f}]"
    print(f"{population * generations:,} in one scan: {median(times):.4f} s {spread}, the first {first:.2f} s")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu", choices=("cpu", "gpu"))
    rounds = parser.parse_args().rounds
    if ON_CPU:
        arrays = compare(rounds)
        show_scan(arrays, 1, 1000, 1000)
        return
    arrays = random_arrays(jax.random.key(0))
    for population, generations in ((POPULATION, GENERATIONS), (1000, 20), (1000, 1000)):
        show_scan(arrays, rounds, population, generations)


if __name__ == "__main__":
    main()
