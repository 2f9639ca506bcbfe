"""Rival methods: `RIVALS[name](problem, evaluations, seed)` returns architectures and measured values, in order.

All have the same noise and the same budget. A repeated architecture costs nothing, since its value can be looked up; only
`linas` pays for it, as in DyNAS-T (`linas_free` does not). Optuna, BoTorch and XGBoost are in requirements.txt and are
imported only where they are used.
"""

from functools import partial

import numpy as np
from linas import linas
from problems import BAND

from benchmarks import draw


class Meter:
    """Measures architectures and counts the distinct ones against a budget; repeated ones are looked up."""

    def __init__(self, problem, evaluations, seed):
        self.problem, self.evaluations, self.seed = problem, evaluations, seed
        self.known: dict[bytes, np.ndarray] = {}
        self.archs: list[np.ndarray] = []

    @property
    def spent(self):
        """Whether the budget is used up."""
        return len(self.archs) >= self.evaluations

    def __call__(self, raw):
        """Returns the values of raw vectors, NaN beyond the budget."""
        archs = self.problem.space.canonical(np.asarray(raw, np.int32))
        new = list({arch.tobytes(): arch for arch in archs if arch.tobytes() not in self.known}.values())
        new = new[: self.evaluations - len(self.archs)]
        if new:
            self.archs += new
            found = self.problem.measure(np.stack(new), self.seed)
            self.known |= {arch.tobytes(): values for arch, values in zip(new, found, strict=True)}
        unknown = np.full(len(self.problem.costs), np.nan)
        return np.stack([self.known.get(arch.tobytes(), unknown) for arch in archs])

    def result(self):
        """Returns distinct architectures and their values, in order of measurement."""
        archs = np.stack(self.archs)
        return archs, np.stack([self.known[arch.tobytes()] for arch in archs])


def random(problem, evaluations, seed):
    """Random search: distinct architectures, every gene uniform over its options."""
    rng, meter = np.random.default_rng(seed), Meter(problem, evaluations, seed)
    while not meter.spent:
        meter(draw(rng, problem.space, evaluations))
    return meter.result()


def nsga2(problem, evaluations, seed, population):
    """pymoo's NSGA-II without predictors, with the operators that its documentation gives for integers."""
    from pymoo.algorithms.moo.nsga2 import NSGA2
    from pymoo.core.problem import Problem
    from pymoo.operators.crossover.sbx import SBX
    from pymoo.operators.mutation.pm import PM
    from pymoo.operators.repair.rounding import RoundingRepair
    from pymoo.operators.sampling.rnd import IntegerRandomSampling

    meter = Meter(problem, evaluations, seed)
    highest = np.array(problem.space.counts) - 1
    algorithm = NSGA2(
        pop_size=population,
        sampling=IntegerRandomSampling(),
        crossover=SBX(prob=1.0, eta=3.0, vtype=float, repair=RoundingRepair()),
        mutation=PM(prob=1.0, eta=3.0, vtype=float, repair=RoundingRepair()),
        eliminate_duplicates=True,
    )
    algorithm.setup(
        Problem(n_var=len(highest), n_obj=2, xl=0, xu=highest, vtype=int), termination=("n_gen", 10**6), seed=seed
    )
    for _ in range(PATIENCE * evaluations // population):
        asked = algorithm.ask()
        values = meter(asked.get("X").astype(int))
        if meter.spent:
            break
        asked.set("F", values)
        algorithm.tell(infills=asked)
    return meter.result()


PATIENCE = 4
"""A rival is stopped after this many times its budget of requests, repeated ones included."""


def optuna(problem, evaluations, seed, sampler, flat=False):
    """Optuna's `sampler` with its defaults: one categorical parameter for each gene that exists.

    `flat`: a parameter for every gene, an integer where its options are ordered, for samplers whose model needs all of them.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    meter, space, objectives = Meter(problem, evaluations, seed), problem.space, len(problem.objectives)
    study = optuna.create_study(directions=["minimize"] * objectives, sampler=getattr(optuna.samplers, sampler)(seed=seed))
    for _ in range(PATIENCE * evaluations):
        trial, arch = study.ask(), np.zeros(len(space.genes), np.int32)
        for i, gene in enumerate(space.genes):
            if flat and gene.ordered:
                arch[i] = trial.suggest_int(gene.name, 0, len(gene.options) - 1)
            elif flat or space.active(arch)[i]:
                arch[i] = trial.suggest_categorical(gene.name, range(len(gene.options)))
        values = meter(arch[None])[0]
        for i, (value, limit) in enumerate(zip(values[objectives:], problem.limits, strict=True)):
            trial.set_constraint(str(i), value - limit)
        study.tell(trial, [float(value) for value in values[:objectives]])
        if meter.spent:
            break
    return meter.result()


def smac(problem, evaluations, seed):
    """SMAC3's facade for hyperparameters with its defaults and ParEGO; integers where a gene's options are ordered."""
    import logging
    from tempfile import TemporaryDirectory

    from ConfigSpace import Categorical, ConfigurationSpace, Integer
    from smac import HyperparameterOptimizationFacade, Scenario
    from smac.multi_objective import ParEGO
    from smac.runhistory import TrialValue

    meter, space = Meter(problem, evaluations, seed), problem.space
    configurations = ConfigurationSpace(seed=seed)
    for gene in space.genes:
        last = len(gene.options) - 1
        single = Integer(gene.name, (0, last)) if gene.ordered and last else Categorical(gene.name, range(last + 1))
        configurations.add(single)
    with TemporaryDirectory() as folder:
        scenario = Scenario(configurations, objectives=list(problem.objectives), deterministic=True, seed=seed,
                            n_trials=PATIENCE * evaluations, output_directory=folder)  # fmt: skip
        search = HyperparameterOptimizationFacade(scenario, lambda config, seed=0: None, logging_level=logging.ERROR,
                                                  multi_objective_algorithm=ParEGO(scenario))  # fmt: skip
        for _ in range(PATIENCE * evaluations):
            trial = search.ask()
            arch = np.array([trial.config[gene.name] for gene in space.genes], np.int32)
            search.tell(trial, TrialValue(cost=[float(value) for value in meter(arch[None])[0]]), save=False)
            if meter.spent:
                break
    return meter.result()


def weaknas(problem, evaluations, seed, band=None):
    """WeakNAS with its authors' settings for Once-for-All MobileNetV3 (github.com/VITA-Group/WeakNAS; arXiv:2102.10490).

    Only the first objective is optimised. From a fixed pool of 10,000 random networks (inside `band` of the second
    objective) 100 are measured, then in each round 100 drawn uniformly from the 1,000 with the best predictions of XGBoost
    (1,000 trees, depth 20) on raw options.
    """
    import xgboost

    rng, meter, space = np.random.default_rng(seed), Meter(problem, evaluations, seed), problem.space
    pool = np.zeros((0, len(space.genes)), np.int32)
    while len(pool) < min(10_000, space.size):
        more = draw(rng, space, 20_000)
        if band is not None:
            macs = np.asarray(problem.costs[1](space.canonical(more)))
            more = more[(macs >= band[0]) & (macs <= band[1])]
        more = np.concatenate([pool, more])
        pool = more[np.sort(np.unique(space.canonical(more), axis=0, return_index=True)[1])][:10_000]
    inputs = np.stack([np.array(gene.options)[pool[:, i]] if gene.ordered else pool[:, i]
                       for i, gene in enumerate(space.genes)], 1).astype(np.float32)  # fmt: skip
    chosen = rng.choice(len(pool), 100, replace=False)
    values = meter(pool[chosen])[:, 0]
    while not meter.spent and len(chosen) < len(pool):
        settings = {"max_depth": 20, "objective": "reg:squarederror", "nthread": 1}
        trees = xgboost.train(settings, xgboost.DMatrix(inputs[chosen], values), num_boost_round=1000)
        best = np.argsort(trees.predict(xgboost.DMatrix(inputs)), kind="stable")[:1000]
        best = best[~np.isin(best, chosen)]
        if not len(best):
            break
        new = rng.choice(best, min(100, len(best)), replace=False)
        chosen, values = np.concatenate([chosen, new]), np.concatenate([values, meter(pool[new])[:, 0]])
    return meter.result()


def qnehvi(problem, evaluations, seed):
    """BoTorch's noisy expected hypervolume improvement (arXiv:2105.08195): see rival_botorch.py."""
    from rival_botorch import search

    meter = Meter(problem, evaluations, seed)
    search(meter, np.random.default_rng(seed))
    return meter.result()


def lamoo(problem, evaluations, seed):
    """LaMOO (arXiv:2110.03173) with BoTorch's expected hypervolume improvement: see rival_lamoo.py."""
    from rival_lamoo import search

    meter = Meter(problem, evaluations, seed)
    search(meter, np.random.default_rng(seed))
    return meter.result()


RIVALS = {
    "random": random,
    "linas": linas,
    "linas_pymoo": partial(linas, inner="pymoo"),
    "linas_free": partial(linas, free=True),
    "weaknas": weaknas,
    "weaknas_band": partial(weaknas, band=BAND),
    "nsga2_20": partial(nsga2, population=20),
    "nsga2_50": partial(nsga2, population=50),
    "optuna_tpe": partial(optuna, sampler="TPESampler"),
    "optuna_nsga2": partial(optuna, sampler="NSGAIISampler"),
    "optuna_gp": partial(optuna, sampler="GPSampler", flat=True),
    "smac": smac,
    "qnehvi": qnehvi,
    "lamoo": lamoo,
}
"""Every rival by name."""
