"""evosax's strategies (Lange 2022), which minimise one value over real vectors, on architectures and several objectives.

A strategy moves one score an option, and an architecture takes each gene's highest; a number of many options is one real.
For several objectives a bank of strategies runs side by side, each after its own augmented-Chebyshev weight; what any of
them has found best is kept.
"""

from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.scipy.special import ndtr, ndtri
from jaxtyping import Array, Float, Int, Num

from nasjax.algorithms.decomposition import LIMIT, chebyshev, directions, normalised
from nasjax.algorithms.genetic import GeneticState
from nasjax.algorithms.nsga2 import NSGA2
from nasjax.algorithms.variation import first, mutation_rate, refilled
from nasjax.errors import ConfigError
from nasjax.pareto import non_dominated, penalised
from nasjax.space import SearchSpace
from nasjax.types import Objectives, Population, PRNGKey, Violations

STRATEGIES = (
    *("ARS", "ASEBO", "CMAAnchoredLES", "CMA_ES", "CR_FM_NES", "DES", "DifferentialEvolution"),
    *("DiffusionEvolution", "ESMC", "EvoTF_ES", "GESMR_GA", "GradientlessDescent", "GuidedES", "HillClimbing"),
    *("LES", "LGA", "LM_MA_ES", "MA_ES", "MR15_GA", "NoiseReuseES", "Open_ES"),
    *("PGPE", "PSO", "PersistentES", "Rm_ES", "SAMR_GA", "SNES", "Sep_CMA_ES"),
    *("SimpleES", "SimpleGA", "SimulatedAnnealing", "iAMaLGaM_Full", "iAMaLGaM_Univariate", "xNES"),
)
"""evosax's names of what runs here. It is imported where one is used, since that takes seconds."""

SCORED = 6
"""The most options of a number for which each has its own score: more would be many reals that know of no order."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class BankState(GeneticState):
    """`archs` and `objectives` are the best found, as NSGA-II sorts them; every strategy has its own state and questions.

    `members` are the objectives of the populations that some strategies keep, NaN where unknown.
    """

    strategies: Any
    scores: Float[Array, "bank each dims"]
    members: Float[Array, "bank kept obj"]


@dataclass(frozen=True)
class Bank:
    """Up to `weights` copies of a strategy share the population; questions that repeat give way to mutants of the best."""

    evosax: ClassVar[str]
    """The strategy's name there."""

    population: int = 50
    weights: int = 5

    def __post_init__(self):
        for name, least in (("population", 2), ("weights", 1)):
            if getattr(self, name) < least:
                raise ConfigError(f"algorithm.{name} must be at least {least}, not {getattr(self, name)}")

    @partial(jax.jit, static_argnums=(0, 2, 4))
    def init(self, key: PRNGKey, space: SearchSpace, start: Population | None = None, objectives: int = 2) -> BankState:
        """The state whose first `ask` is `start`'s first distinct rows, topped up with samples; `objectives`: how many."""
        draw, begin, key = jax.random.split(key, 3)
        bank, each = self._shares(objectives)
        strategy, parameters, by_population = _strategy(self._name(), each, sum(_widths(space)))

        def begun(key: PRNGKey) -> Any:
            if not by_population:
                return strategy.init(key, jnp.zeros(strategy.num_dims), parameters)
            members = jax.random.normal(key, (each, strategy.num_dims))
            return strategy.init(key, members, jnp.full(each, jnp.inf), parameters)

        with _relaxed():
            strategies = jax.tree.map(_strong, jax.vmap(begun)(jax.random.split(begin, bank)))
        archs = first(draw, space, start, self.population)
        unknown = jnp.full((self.population, objectives), jnp.nan, jnp.float32)
        scores = jnp.zeros((bank, each, strategy.num_dims))
        members = jnp.full((bank, strategies.population.shape[1] if by_population else 0, objectives), jnp.nan, jnp.float32)
        return BankState(space, key, jnp.zeros((), jnp.int32), archs, unknown, strategies, scores, members)

    @partial(jax.jit, static_argnums=0)
    def ask(self, state: BankState) -> tuple[Int[Array, "pop genes"], BankState]:
        """The architectures to be scored next: canonical, distinct, none of them kept already where the space has enough."""
        space, number = state.space, self.population
        bank, each, dims = state.scores.shape
        strategy, parameters, _ = _strategy(self._name(), each, dims)
        draw, again, fresh, wake = jax.random.split(jax.random.fold_in(state.key, state.step), 4)
        with _relaxed():
            asked = jax.vmap(strategy.ask, (0, 0, None))
            scores, strategies = asked(jax.random.split(draw, bank), state.strategies, parameters)
        # One question of each strategy, then the next of each: a population they do not divide leaves out the same of all.
        rows = scores.swapaxes(0, 1).reshape(bank * each, dims)

        def begin() -> tuple[Int[Array, "pop genes"], Float[Array, "all dims"]]:
            return state.archs, jnp.concatenate([_imposed(space, rows[:number], state.archs), rows[number:]])

        def go_on() -> tuple[Int[Array, "pop genes"], Float[Array, "all dims"]]:
            raw = space.fill_inactive(wake, state.archs)
            archs = space.canonical(jnp.resize(_chosen(space, rows), (number, len(space.genes))))
            return refilled(space, (again, fresh), archs, raw, state.archs, mutation_rate(space, None)), rows

        archs, rows = lax.cond(state.step == 0, begin, go_on)
        scores = rows.reshape(each, bank, dims).swapaxes(0, 1)
        strategies = jax.tree.map(_like, strategies, state.strategies)
        return archs, replace(state, step=state.step + 1, strategies=strategies, scores=scores)

    @partial(jax.jit, static_argnums=0)
    def tell(
        self,
        state: BankState,
        archs: Population,
        objectives: Objectives,
        violations: Violations | None = None,
    ) -> BankState:
        """The best of those kept and `archs` (any number), and every strategy told of its own questions."""
        space = state.space
        bank, each, dims = state.scores.shape
        strategy, parameters, by_population = _strategy(self._name(), each, dims)
        archs = space.canonical(jnp.asarray(archs))
        told: BankState = NSGA2(self.population).tell(state, archs, objectives, violations)  # type: ignore[assignment]
        values = penalised(jnp.asarray(objectives, state.objectives.dtype), violations)

        # A question may have been replaced, by us or by a tactic: then its value is known from before, or is the worst.
        questions = space.canonical(_chosen(space, state.scores.reshape(bank * each, dims)))
        seen, seen_values = jnp.concatenate([archs, told.archs]), jnp.concatenate([values, told.objectives])
        found = _recalled(jnp.asarray(questions), seen, seen_values).reshape(bank, each, -1)
        towards = directions(values.shape[1], bank)
        fitness = _fitness(found, told.objectives, towards)
        before, members = state.strategies, state.members
        if by_population:
            # What is the best along a direction has moved on: or a value from long ago would never be beaten.
            known = ~jnp.isnan(members).any(axis=2)
            before = before.replace(fitness=jnp.where(known, _fitness(members, told.objectives, towards), before.fitness))
        with _relaxed():
            tells = jax.vmap(strategy.tell, (0, 0, 0, 0, None))
            keys = jax.random.split(jax.random.fold_in(state.key, -state.step), bank)
            strategies, _ = tells(keys, state.scores, fitness, before, parameters)
        if by_population:
            sources = jnp.concatenate([state.scores, before.population], axis=1)
            members = jax.vmap(_recalled)(strategies.population, sources, jnp.concatenate([found, members], axis=1))
        return replace(told, strategies=jax.tree.map(_like, strategies, state.strategies), members=members)

    def _name(self) -> str:
        return self.evosax

    def _shares(self, objectives: int) -> tuple[int, int]:
        """How many strategies, and how many questions each: at least 4 and even, as several of them need."""
        bank = 1 if objectives == 1 else max(1, min(self.weights, self.population // 4))
        return bank, max(4, 2 * -(-self.population // (2 * bank)))


@dataclass(frozen=True)
class CMAES(Bank):
    """CMA-ES (Hansen and Ostermeier 2001)."""

    evosax = "CMA_ES"


@dataclass(frozen=True)
class SNES(Bank):
    """Separable natural evolution strategy (Schaul et al. 2011)."""

    evosax = "SNES"


@dataclass(frozen=True)
class SepCMAES(Bank):
    """CMA-ES with a diagonal covariance (Ros and Hansen 2008)."""

    evosax = "Sep_CMA_ES"


@dataclass(frozen=True)
class DifferentialEvolution(Bank):
    """Differential evolution (Storn and Price 1997)."""

    evosax = "DifferentialEvolution"


@dataclass(frozen=True)
class Evosax(Bank):
    """Any of evosax's strategies by its own name."""

    strategy: str = "Open_ES"

    def __post_init__(self):
        super().__post_init__()
        if self.strategy not in STRATEGIES:
            raise ConfigError(f"algorithm.strategy {self.strategy!r} is unknown; allowed: {', '.join(STRATEGIES)}")

    def _name(self) -> str:
        return self.strategy


@lru_cache(maxsize=64)
def _strategy(name: str, population: int, dims: int) -> tuple[Any, Any, bool]:
    """The one object of its kind (another would compile again), its parameters, and whether it begins from a population."""
    with jax.ensure_compile_time_eval(), _relaxed():
        # In here, for its modules compute constants as they are imported, which inside a trace would be tracers.
        from evosax.algorithms import algorithms, population_based_algorithms

        strategy = algorithms[name](population, jnp.zeros(dims))
        return strategy, strategy.default_params, name in population_based_algorithms


def _relaxed():
    """evosax mixes dtypes and ranks."""
    stack = ExitStack()
    stack.enter_context(jax.numpy_dtype_promotion("standard"))
    stack.enter_context(jax.numpy_rank_promotion("allow"))
    return stack


def _strong(leaf: Any) -> Array:
    """Not weakly typed, so that the state of the first step compiles nothing that the others do not."""
    leaf = jnp.asarray(leaf)
    return leaf if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else lax.convert_element_type(leaf, leaf.dtype)


def _like(leaf: Any, before: Array) -> Array:
    return leaf if jnp.issubdtype(before.dtype, jax.dtypes.prng_key) else lax.convert_element_type(leaf, before.dtype)


def _widths(space: SearchSpace) -> tuple[int, ...]:
    """How many reals stand for each gene: one a scored option, one for a number of many options."""
    return tuple(len(gene.options) if not gene.ordered or len(gene.options) <= SCORED else 1 for gene in space.genes)


def _columns(space: SearchSpace) -> Int[np.ndarray, "genes options"]:
    """Where the score of each gene's options stands; past the end for options that a gene does not have."""
    widths = _widths(space)
    starts = np.cumsum((0, *widths))
    options = np.arange(max(widths, default=1))
    return np.where(options < np.array(widths)[:, None], starts[:-1, None] + options, starts[-1])


def _numbers(space: SearchSpace) -> tuple[Int[np.ndarray, " some"], Float[np.ndarray, " some"]]:
    """The genes of one real each, and their numbers of options."""
    some = np.flatnonzero(np.array(_widths(space)) < np.array(space.counts))
    return some, np.array(space.counts, np.float32)[some]


def _by_gene(space: SearchSpace, rows: Float[Array, "pop dims"]) -> Float[Array, "pop genes options"]:
    rows = jnp.nan_to_num(rows, nan=-3e38, posinf=3e38, neginf=-3e38)
    return jnp.pad(rows, ((0, 0), (0, 1)), constant_values=-jnp.inf)[:, _columns(space)]


def _chosen(space: SearchSpace, rows: Float[Array, "pop dims"]) -> Int[Array, "pop genes"]:
    """Each gene's option of the highest score; a number's by its place in the normal distribution (raw)."""
    scores = _by_gene(space, rows)
    some, counts = _numbers(space)
    placed = jnp.floor(ndtr(scores[:, some, 0]) * counts[None])
    archs = scores.argmax(axis=2).astype(jnp.int32)
    return archs.at[:, some].set(jnp.minimum(placed, counts[None] - 1).astype(jnp.int32))


def _imposed(space: SearchSpace, rows: Float[Array, "pop dims"], archs: Population) -> Float[Array, "pop dims"]:
    """Scores whose architectures are `archs`: each gene's highest score changes places with the wanted option's."""
    scores, archs = _by_gene(space, rows), jnp.asarray(archs)
    archs = jnp.where(space.active(archs), archs, _chosen(space, rows))
    top, wanted = scores.argmax(axis=2)[..., None].astype(jnp.int32), archs[..., None]
    option = jnp.broadcast_to(jnp.arange(scores.shape[2]), scores.shape)
    swapped = jnp.where(option == wanted, top, jnp.where(option == top, wanted, option))
    swapped = jnp.take_along_axis(scores, swapped, axis=2)
    some, counts = _numbers(space)
    swapped = swapped.at[:, some, 0].set(ndtri((archs[:, some].astype(jnp.float32) + 0.5) / counts[None]))
    return rows.at[:, _columns(space).ravel()].set(swapped.reshape(len(rows), -1), mode="drop")


def _recalled(
    rows: Num[Array, "pop columns"], sources: Num[Array, "all columns"], values: Float[Array, "all obj"]
) -> Float[Array, "pop obj"]:
    """The values of the first of `sources` that equals each row, NaN where none does."""
    same = (rows[:, None] == sources[None]).all(axis=2)
    return jnp.where(same.any(axis=1)[:, None], values[same.argmax(axis=1)], jnp.nan)


def _fitness(
    values: Float[Array, "bank each obj"], best: Float[Array, "pop obj"], towards: Float[np.ndarray, "bank obj"]
) -> Float[Array, "bank each"]:
    """What each strategy minimises; finite, for some of them take means."""

    def along(values: Float[Array, "each obj"], direction: Float[Array, " obj"]) -> Float[Array, " each"]:
        front = jnp.concatenate([non_dominated(best), jnp.zeros(len(values), bool)])
        return chebyshev(normalised(jnp.concatenate([best, values]), front)[len(best) :], direction[None])[0]

    if values.shape[2] == 1:
        # There is one direction, and no scale is needed.
        scores = jnp.where(values < LIMIT, values, 1e15 * jnp.log10(values))[..., 0]
    else:
        scores = jax.vmap(along)(values, jnp.asarray(towards))
    return jnp.clip(jnp.nan_to_num(scores, nan=1e17), -1e17, 1e17)
