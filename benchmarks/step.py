"""One step of a tactic: 20,000 predicted evaluations as DyNAS-T does them, by pymoo in batches, and by one jitted scan.

    pip install pymoo && python benchmarks/step.py

All three evaluate the same two support vector machines (scikit-learn, RBF, one-hot inputs, fitted to 250 random networks of
Once-for-All's MobileNetV3) and run NSGA-II with a population of 50 for 400 generations, in turn, on one core. DyNAS-T's
`eval_subnet` in predictor mode (github.com/IntelLabs/DyNAS-T at 251cb5e) takes one individual at a time: a dictionary of
parameters, a deep copy, a one-hot vector and a prediction for every objective. Times exclude compilation.
The last line is a million predicted evaluations in one scan (population 1,000).
"""

import os

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"
os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"

import argparse
import copy
from statistics import median
from time import perf_counter

import jax
import jax.numpy as jnp
import numpy as np
from pymoo.algorithms.moo.nsga2 import NSGA2 as PymooNSGA2
from pymoo.core.problem import Problem
from pymoo.operators.crossover.sbx import SBX
from pymoo.operators.mutation.pm import PM
from pymoo.operators.repair.rounding import RoundingRepair
from pymoo.operators.sampling.rnd import IntegerRandomSampling
from pymoo.optimize import minimize
from sklearn.svm import SVR

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
    return np.concatenate([np.eye(count)[archs[:, i]] for i, count in enumerate(COUNTS)], 1)


def machines(seed):
    """Two fitted support vector machines, of targets like an error and a cost, with unit variance."""
    rng = np.random.default_rng(seed)
    archs = np.stack([rng.integers(0, count, NETWORKS) for count in COUNTS], 1)
    hot = one_hot(archs)
    size = archs @ rng.uniform(0.5, 1.5, archs.shape[1])
    targets = -np.sqrt(size) - 0.1 * np.sin(hot @ rng.normal(size=hot.shape[1])), size
    return [SVR(gamma="auto", C=10.0, epsilon=0.01).fit(hot, (t - t.mean()) / t.std()) for t in targets]


# -- as DyNAS-T does, and in batches --------------------------------------------------------------------------------------


class OneByOne(Problem):
    def __init__(self, models):
        super().__init__(n_var=len(COUNTS), n_obj=2, xl=0, xu=np.array(COUNTS) - 1, vtype=int)
        self.models = models

    def _evaluate(self, x, out, *args, **kwargs):
        out["F"] = np.array([self._one(row) for row in x])

    def _one(self, row):
        parameters, place = {}, 0
        for name, options, number in GENES:
            parameters[name] = [options[round(index)] for index in row[place : place + number]]
            place += number
        copy.deepcopy({"wid": None, **parameters, "r": [224]})
        return [model.predict(self._one_hot(row).reshape(1, -1))[0] for model in self.models]

    def _one_hot(self, row):
        segments = []
        for index, count in zip(row, COUNTS, strict=True):
            segment = [0 for _ in range(count)]
            segment[index] = 1
            segments.extend(segment)
        return np.array(segments)


class Batched(OneByOne):
    def _evaluate(self, x, out, *args, **kwargs):
        hot = one_hot(x.astype(int))
        out["F"] = np.stack([model.predict(hot) for model in self.models], 1)


def by_pymoo(problem, seed):
    """DyNAS-T's settings of pymoo's NSGA-II."""
    algorithm = PymooNSGA2(
        pop_size=POPULATION,
        sampling=IntegerRandomSampling(),
        crossover=SBX(prob=0.9, eta=15.0, vtype=float, repair=RoundingRepair()),
        mutation=PM(prob=0.02, eta=20.0, vtype=float, repair=RoundingRepair()),
        eliminate_duplicates=True,
    )
    return minimize(problem, algorithm, ("n_gen", GENERATIONS), seed=seed).pop.get("F")


# -- one scan -------------------------------------------------------------------------------------------------------------


def sums(model, capacity=256):
    """A support vector machine as arrays of a fixed shape: support vectors, their weights, the intercept."""
    vectors, weights = np.zeros((capacity, model.support_vectors_.shape[1]), np.float32), np.zeros(capacity, np.float32)
    vectors[: len(model.support_)], weights[: len(model.support_)] = model.support_vectors_, model.dual_coef_[0]
    return jnp.asarray(vectors), jnp.asarray(weights), jnp.float32(model.intercept_[0])


def predicted(models, archs):
    """The machines' predictions, jittable. A squared distance of one-hot rows is twice the number of genes that differ."""
    hot = jnp.concatenate([jax.nn.one_hot(archs[:, i], count) for i, count in enumerate(COUNTS)], 1)

    def one(model):
        vectors, weights, intercept = model
        return jnp.exp((hot @ vectors.T - len(COUNTS)) * (2 / hot.shape[1])) @ weights + intercept

    return jnp.stack([one(model) for model in models], 1)


def by_scan(models, seed, population=POPULATION, generations=GENERATIONS):
    state = evolve(NSGA2(population=population), SPACE, predicted, models, jax.random.key(seed), generations)
    return np.asarray(jax.block_until_ready(state).objectives)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    models = machines(0)
    arrays = tuple(map(sums, models))
    archs = np.asarray(SPACE.sample(jax.random.key(9), 100))
    predictions = np.stack([model.predict(one_hot(archs)) for model in models], 1)
    difference = np.abs(predictions - predicted(arrays, archs)).max()
    print(f"largest difference between scikit-learn's predictions and ours: {difference:.1e}")
    ways = {
        "as DyNAS-T": lambda seed: by_pymoo(OneByOne(models), seed),
        "pymoo, batched": lambda seed: by_pymoo(Batched(models), seed),
        "one scan": lambda seed: by_scan(arrays, seed),
    }
    began = perf_counter()
    by_scan(arrays, 0)
    print(f"first scan, compilation included: {perf_counter() - began:.2f} s")
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
    by_scan(arrays, 0, 1000, 1000)
    began = perf_counter()
    by_scan(arrays, 1, 1000, 1000)
    print(f"a million in one scan: {perf_counter() - began:.2f} s")


if __name__ == "__main__":
    main()
