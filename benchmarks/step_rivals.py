"""The rivals of step.py: 20,000 predicted evaluations as DyNAS-T does them, one by one, and by pymoo in batches.

DyNAS-T's `eval_subnet` in predictor mode (github.com/IntelLabs/DyNAS-T at 251cb5e) takes one individual at a time: a
dictionary of parameters, a deep copy, a one-hot vector and a prediction for every objective.
"""

import copy

import numpy as np
from pymoo.algorithms.moo.nsga2 import NSGA2
from pymoo.core.problem import Problem
from pymoo.operators.crossover.sbx import SBX
from pymoo.operators.mutation.pm import PM
from pymoo.operators.repair.rounding import RoundingRepair
from pymoo.operators.sampling.rnd import IntegerRandomSampling
from pymoo.optimize import minimize
from sklearn.svm import SVR
from step import COUNTS, GENERATIONS, GENES, NETWORKS, POPULATION, one_hot


def machines(seed):
    """Two support vector machines, of targets like an error and a cost with unit variance, and what they are fitted to."""
    rng = np.random.default_rng(seed)
    archs = np.stack([rng.integers(0, count, NETWORKS) for count in COUNTS], 1)
    hot = one_hot(archs)
    size = archs @ rng.uniform(0.5, 1.5, archs.shape[1])
    targets = -np.sqrt(size) - 0.1 * np.sin(hot @ rng.normal(size=hot.shape[1])), size
    fitted = [SVR(gamma="auto", C=10.0, epsilon=0.01).fit(hot, (t - t.mean()) / t.std()) for t in targets]
    return fitted, archs


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
    algorithm = NSGA2(
        pop_size=POPULATION,
        sampling=IntegerRandomSampling(),
        crossover=SBX(prob=0.9, eta=15.0, vtype=float, repair=RoundingRepair()),
        mutation=PM(prob=0.02, eta=20.0, vtype=float, repair=RoundingRepair()),
        eliminate_duplicates=True,
    )
    return minimize(problem, algorithm, ("n_gen", GENERATIONS), seed=seed).pop.get("F")
