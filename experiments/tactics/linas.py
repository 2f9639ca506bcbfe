"""LINAS re-implemented from DyNAS-T (github.com/IntelLabs/DyNAS-T at 251cb5e; arXiv:2205.10358).

First a random population of 50 raw vectors is measured. Then, repeatedly: for every objective, exact ones included, a
predictor is fitted to all measurements (on one-hot vectors of all genes, those of absent blocks included; ridge or RBF SVR,
whichever has the better cross-validated MAPE); NSGA-II runs 20,000 evaluations on the predictions from a random start; its
last population of 50 is measured, repeated networks included.

Two things differ from the original, to save time. The inner NSGA-II is one jitted scan with pymoo's operators and survival
(`inner="pymoo"` runs pymoo itself; README.md compares them). Of SVR's hundred values of C (1, 2, …, 100) a geometric subset
is tried in ascending order, until three in a row are no better; with 150 networks the best score is the same.
"""

from dataclasses import dataclass, field
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from pymoo.algorithms.moo.nsga2 import NSGA2
from pymoo.core.problem import Problem
from pymoo.operators.crossover.sbx import SBX
from pymoo.operators.mutation.pm import PM
from pymoo.operators.repair.rounding import RoundingRepair
from pymoo.operators.sampling.rnd import IntegerRandomSampling
from pymoo.optimize import minimize
from sklearn.linear_model import Ridge
from sklearn.model_selection import KFold
from sklearn.svm import SVR

from nasjax.pareto import crowding_distance, non_dominated_sort
from nasjax.space import duplicates

POPULATION = 50
INNER = 20_000
"""Evaluations of the inner search, DyNAS-T's setting for Once-for-All MobileNetV3 (5,000 to 20,000 for others)."""

ALPHAS = np.arange(0.1, 10.1, 0.1)
COSTS = (1, 2, 3, 4, 6, 8, 11, 16, 23, 32, 45, 64, 90, 100)
FOLDS = 5

SBX_ETA, SBX_RATE, SBX_GENES = 15.0, 0.9, 0.5
PM_ETA, PM_RATE = 20.0, 0.02
"""DyNAS-T's rates. In pymoo 0.6 and later PM_RATE is per child; each of its genes mutates at one over their number."""


def one_hot(raw, counts):
    """Raw vectors (rows, genes) as one-hot vectors of all genes."""
    return np.concatenate([np.eye(count)[raw[:, i]] for i, count in enumerate(counts)], 1)


# -- predictors -----------------------------------------------------------------------------------------------------------


def mape(values, found):
    return np.mean(np.abs(found - values) / np.maximum(np.abs(values), np.finfo(float).eps))


def ridge_scores(inputs, labels):
    """Returns the cross-validated MAPE of every alpha, from one decomposition for each fold."""
    scores = []
    for train, test in KFold(FOLDS).split(inputs):
        centre, mean = inputs[train].mean(0), labels[train].mean()
        centred = inputs[train] - centre
        # Of the Gram matrix, since LAPACK's SVD fails on some matrices of zeros and ones.
        squares, axes = np.linalg.eigh(centred.T @ centred)
        weights = axes @ (
            (axes.T @ (centred.T @ (labels[train] - mean)))[:, None] / (np.maximum(squares, 0)[:, None] + ALPHAS)
        )
        found = mean + (inputs[test] - centre) @ weights
        scores.append([mape(labels[test], column) for column in found.T])
    return np.mean(scores, 0)


def svr(cost):
    return SVR(kernel="rbf", gamma="auto", epsilon=0.0, C=float(cost), max_iter=1_000_000)


def svr_score(inputs, labels, cost):
    folds = KFold(FOLDS).split(inputs)
    return np.mean(
        [mape(labels[test], svr(cost).fit(inputs[train], labels[train]).predict(inputs[test])) for train, test in folds]
    )


def fit(inputs, values, capacity):
    """Fits DyNAS-T's predictor of one objective: a kernel part padded to `capacity` and a linear part, one of them 0."""
    unit = 10 ** (np.floor(np.log10(np.abs(values).max())) - 1)
    labels = values / unit
    alphas = ridge_scores(inputs, labels)
    costs: dict[int, float] = {}
    for cost in COSTS:
        costs[cost] = svr_score(inputs, labels, cost)
        tried = list(costs.values())
        if len(tried) > 3 and min(tried[-3:]) >= min(tried[:-3]):
            break
    best = min(costs, key=costs.get)
    rows, duals, linear = np.zeros((capacity, inputs.shape[1])), np.zeros(capacity), np.zeros(inputs.shape[1])
    if alphas.min() <= costs[best]:
        model = Ridge(alpha=ALPHAS[alphas.argmin()]).fit(inputs, labels)
        linear, offset = model.coef_, model.intercept_
    else:
        model = svr(best).fit(inputs, labels)
        rows[: len(model.support_)], duals[: len(model.support_)] = model.support_vectors_, model.dual_coef_[0]
        offset = model.intercept_[0]
    return tuple(jnp.asarray(part, jnp.float32) for part in (rows, duals, linear, offset, unit))


def predict(model, inputs):
    """Predicts values of one-hot rows. A squared distance of two rows is the number of ones minus twice the shared ones."""
    rows, duals, linear, offset, unit = model
    distances = inputs.sum(1)[:, None] + rows.sum(1) - 2 * inputs @ rows.T
    return unit * (jnp.exp(-distances / inputs.shape[1]) @ duals + inputs @ linear + offset)


# -- the inner search -----------------------------------------------------------------------------------------------------


def draw(key, counts, number):
    return jax.random.randint(key, (number, len(counts)), 0, jnp.array(counts))


def cross(key, one, other, highest):
    """Bounded simulated binary crossover (Deb and Agrawal 1995): two children of every pair, before rounding."""
    pair, gene, spread, swap = jax.random.split(key, 4)
    low, high = jnp.minimum(one, other), jnp.maximum(one, other)
    gap = jnp.where(high > low, high - low, 1.0)
    u = jax.random.uniform(spread, one.shape)

    def factor(room):
        alpha = 2 - (1 + 2 * room / gap) ** -(SBX_ETA + 1)
        return jnp.where(u <= 1 / alpha, u * alpha, 1 / (2 - u * alpha)) ** (1 / (SBX_ETA + 1))

    first = 0.5 * (low + high - factor(low) * gap)
    second = 0.5 * (low + high + factor(highest - high) * gap)
    # Children replace the parents in random order.
    swapped = jax.random.bernoulli(swap, 0.5, one.shape)
    hit = (
        jax.random.bernoulli(gene, SBX_GENES, one.shape) & jax.random.bernoulli(pair, SBX_RATE, (len(one), 1)) & (high > low)
    )
    children = (
        jnp.where(hit, jnp.where(swapped, first, second), one),
        jnp.where(hit, jnp.where(swapped, second, first), other),
    )
    return jnp.concatenate(children)


def mutate(key, raw, highest):
    """Polynomial mutation (Deb and Goyal 1996), before rounding."""
    row, gene, size = jax.random.split(key, 3)
    hit = jax.random.bernoulli(row, PM_RATE, (len(raw), 1)) & jax.random.bernoulli(
        gene, min(0.5, 1 / raw.shape[1]), raw.shape
    )
    u, scale = jax.random.uniform(size, raw.shape), jnp.maximum(highest, 1.0)
    down = (2 * u + (1 - 2 * u) * (1 - raw / scale) ** (PM_ETA + 1)) ** (1 / (PM_ETA + 1)) - 1
    up = 1 - (2 * (1 - u) + 2 * (u - 0.5) * (raw / scale) ** (PM_ETA + 1)) ** (1 / (PM_ETA + 1))
    return jnp.where(hit & (highest > 0), raw + jnp.where(u <= 0.5, down, up) * scale, raw)


def offspring(key, archs, values, crowding, counts):
    """Returns POPULATION children, distinct and new; after a hundred rounds of mating they may repeat each other."""
    highest = jnp.array(counts, jnp.float32) - 1

    def mate(state):
        key, children, found, rounds = state
        key, *keys = jax.random.split(key, 6)
        # Two permutations of the population: everyone takes part in two tournaments.
        rivals = jnp.concatenate([jax.random.permutation(keys[i], POPULATION) for i in range(2)]).reshape(POPULATION, 2)
        a, b = rivals[:, 0], rivals[:, 1]
        better = (values[a] <= values[b]).all(1) & (values[a] < values[b]).any(1)
        worse = (values[b] <= values[a]).all(1) & (values[b] < values[a]).any(1)
        luck = jax.random.bernoulli(keys[2], 0.5, (POPULATION,))
        emptier = (crowding[a] > crowding[b]) | ((crowding[a] == crowding[b]) & luck)
        parents = archs[jnp.where(better | (~worse & emptier), a, b)].astype(jnp.float32)
        born = jnp.round(jnp.clip(cross(keys[3], parents[0::2], parents[1::2], highest), 0, highest))
        born = jnp.round(jnp.clip(mutate(keys[4], born, highest), 0, highest)).astype(jnp.int32)
        pool = jnp.concatenate([archs, children, born])
        # Places that are not filled yet must count as repeated.
        empty = (jnp.arange(len(pool)) >= POPULATION + found) & (jnp.arange(len(pool)) < 2 * POPULATION)
        new = ~duplicates(jnp.where(empty[:, None], archs[0], pool))[POPULATION:]
        order = jnp.argsort(~new)[:POPULATION]
        return key, pool[POPULATION:][order], jnp.minimum(new.sum(), POPULATION), rounds + 1

    start = key, jnp.broadcast_to(archs[0], archs.shape), jnp.zeros((), new_type()), 0
    return lax.while_loop(lambda state: (state[2] < POPULATION) & (state[3] < 100), mate, start)[1]


def new_type():
    """The dtype of a sum of booleans, which depends on JAX's settings."""
    return jnp.zeros(1, bool).sum().dtype


@partial(jax.jit, static_argnames=("counts", "generations"))
def evolve(models, key, counts, generations):
    """Runs NSGA-II on the predictions of `models` and returns its last population."""

    def score(archs):
        hot = jnp.concatenate([jax.nn.one_hot(archs[:, i], count) for i, count in enumerate(counts)], 1)
        return jnp.stack([predict(model, hot) for model in models], 1)

    def crowded(values):
        ranks = non_dominated_sort(values)
        return ranks, crowding_distance(values, ranks)

    def generation(state, key):
        archs, values, crowding = state
        children = offspring(key, archs, values, crowding, counts)
        archs, values = jnp.concatenate([archs, children]), jnp.concatenate([values, score(children)])
        # Repeated children (where nothing new was found) go last.
        repeated = duplicates(archs)
        ranks, crowding = crowded(values)
        best = jnp.lexsort((-crowding, ranks, repeated))[:POPULATION]
        return (archs[best], values[best], crowding[best]), None

    first, rest = jax.random.split(key)
    archs = draw(first, counts, 8 * POPULATION)
    archs = archs[jnp.argsort(duplicates(archs))][:POPULATION]
    values = score(archs)
    state = archs, values, crowded(values)[1]
    return lax.scan(generation, state, jax.random.split(rest, generations - 1))[0][0]


@dataclass
class Predicted(Problem):
    """The predictions as a problem of pymoo."""

    models: tuple
    counts: tuple
    evaluations: int = field(default=0, init=False)

    def __post_init__(self):
        super().__init__(n_var=len(self.counts), n_obj=len(self.models), xl=0, xu=np.array(self.counts) - 1, vtype=int)

    def _evaluate(self, x, out, *args, **kwargs):
        hot = jnp.asarray(one_hot(x.astype(int), self.counts), jnp.float32)
        out["F"] = np.stack([np.asarray(predict(model, hot)) for model in self.models], 1)


def evolve_pymoo(models, seed, counts, generations):
    """Runs pymoo's own NSGA-II on the predictions, with DyNAS-T's settings."""
    algorithm = NSGA2(
        pop_size=POPULATION,
        sampling=IntegerRandomSampling(),
        crossover=SBX(prob=SBX_RATE, eta=SBX_ETA, vtype=float, repair=RoundingRepair()),
        mutation=PM(prob=PM_RATE, eta=PM_ETA, vtype=float, repair=RoundingRepair()),
        eliminate_duplicates=True,
    )
    return minimize(Predicted(models, counts), algorithm, ("n_gen", generations), seed=seed).pop.get("X").astype(int)


# -- the outer loop -------------------------------------------------------------------------------------------------------


def linas(problem, evaluations, seed, inner="scan", free=False):
    """Runs LINAS: returns canonical architectures and measured values in order.

    A repeated network costs an evaluation, as in DyNAS-T, unless `free`; then up to twice as many rounds are run.
    """
    counts, rng, rounds = problem.space.counts, np.random.default_rng(seed), -(-evaluations // POPULATION)
    capacity = 1 << (rounds * POPULATION * (2 if free else 1) - 1).bit_length()
    raw = np.stack([rng.integers(0, count, POPULATION) for count in counts], 1)
    known, values = np.zeros((0, len(counts)), int), np.zeros((0, len(problem.objectives)))
    for left in reversed(range(rounds * (2 if free else 1))):
        known = np.concatenate([known, raw])
        values = np.concatenate([values, problem.measure(problem.space.canonical(raw.astype(np.int32)), seed)])
        archs = problem.space.canonical(known.astype(np.int32))
        paid = np.sort(np.unique(archs, axis=0, return_index=True)[1]) if free else np.arange(len(archs))
        if len(paid) >= evaluations or not left:
            return archs[paid[:evaluations]], values[paid[:evaluations]]
        distinct = np.sort(np.unique(known, axis=0, return_index=True)[1])
        inputs = one_hot(known[distinct], counts)
        models = tuple(fit(inputs, column, capacity) for column in values[distinct].T)
        # DyNAS-T uses the same seed for the inner search of every round.
        if inner == "pymoo":
            raw = evolve_pymoo(models, seed, counts, INNER // POPULATION)
        else:
            raw = np.asarray(evolve(models, jax.random.key(seed), counts, INNER // POPULATION), int)
    raise ValueError("evaluations must be at least 1")
