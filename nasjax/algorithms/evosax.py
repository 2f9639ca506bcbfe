"""Single-objective strategies of evosax (Lange 2022) applied to architectures and to several objectives.

A strategy moves one real score per option, and an architecture takes the option with the highest score of each gene. An
ordered gene with many options is a single real instead. For several objectives, strategies for different augmented Chebyshev
weights run side by side and share an archive of the best architectures.
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

from nasjax.algorithms.decomposition import PENALTY_THRESHOLD, chebyshev, directions, normalised
from nasjax.algorithms.genetic import GeneticState
from nasjax.algorithms.nsga2 import NSGA2
from nasjax.algorithms.variation import initial_population, mutation_rate, replace_repeated
from nasjax.errors import ConfigError
from nasjax.pareto import non_dominated, penalised
from nasjax.space import SearchSpace
from nasjax.types import Objectives, Population, PRNGKey, Violations

EVOSAX_STRATEGIES = (
    *("ARS", "ASEBO", "CMAAnchoredLES", "CMA_ES", "CR_FM_NES", "DES", "DifferentialEvolution"),
    *("DiffusionEvolution", "ESMC", "EvoTF_ES", "GESMR_GA", "GradientlessDescent", "GuidedES", "HillClimbing"),
    *("LES", "LGA", "LM_MA_ES", "MA_ES", "MR15_GA", "NoiseReuseES", "Open_ES"),
    *("PGPE", "PSO", "PersistentES", "Rm_ES", "SAMR_GA", "SNES", "Sep_CMA_ES"),
    *("SimpleES", "SimpleGA", "SimulatedAnnealing", "iAMaLGaM_Full", "iAMaLGaM_Univariate", "xNES"),
)
"""Names of the evosax strategies that are supported. evosax is imported on first use, since that takes seconds."""

MAX_SCORED_OPTIONS = 6
"""An ordered gene with more options than this is encoded as one real, which keeps the order."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class BankState(GeneticState):
    """`archs` and `objectives` are the best rows by NSGA-II; each strategy has its own state and last candidates (`scores`).

    `members` are the objectives of the populations that some strategies keep, NaN where unknown.
    """

    strategies: Any
    scores: Float[Array, "bank each dims"]
    members: Float[Array, "bank kept obj"]


@dataclass(frozen=True)
class StrategyBank:
    """`weights` copies of a strategy share the population; candidates that repeat an architecture are replaced by mutants.

    `population` is the number of architectures in a generation, of all copies together. Raises ConfigError for invalid
    settings.
    """

    evosax: ClassVar[str]
    """The strategy's name in evosax."""

    population: int = 50
    weights: int = 5

    def __post_init__(self):
        for name, least in (("population", 2), ("weights", 1)):
            if getattr(self, name) < least:
                raise ConfigError(f"algorithm.{name} must be at least {least}, not {getattr(self, name)}")

    @partial(jax.jit, static_argnums=(0, 2, 4))
    def init(self, key: PRNGKey, space: SearchSpace, start: Population | None = None, objectives: int = 2) -> BankState:
        """The initial state; the first `ask` returns the distinct rows of `start`, topped up with random architectures.

        `objectives` is the number of objectives.
        """
        draw, init_key, key = jax.random.split(key, 3)
        bank, per_strategy = self._split_population(objectives)
        strategy, parameters, by_population = _build_strategy(
            self._strategy_name(), per_strategy, sum(_reals_per_gene(space))
        )

        def init_strategy(key: PRNGKey) -> Any:
            if not by_population:
                return strategy.init(key, jnp.zeros(strategy.num_dims), parameters)
            members = jax.random.normal(key, (per_strategy, strategy.num_dims))
            return strategy.init(key, members, jnp.full(per_strategy, jnp.inf), parameters)

        with _relaxed_promotion():
            strategies = jax.tree.map(_strongly_typed, jax.vmap(init_strategy)(jax.random.split(init_key, bank)))
        archs = initial_population(draw, space, start, self.population)
        unknown = jnp.full((self.population, objectives), jnp.nan, jnp.float32)
        scores = jnp.zeros((bank, per_strategy, strategy.num_dims))
        members = jnp.full((bank, strategies.population.shape[1] if by_population else 0, objectives), jnp.nan, jnp.float32)
        return BankState(space, key, jnp.zeros((), jnp.int32), archs, unknown, strategies, scores, members)

    @partial(jax.jit, static_argnums=0)
    def ask(self, state: BankState) -> tuple[Int[Array, "pop genes"], BankState]:
        """The next architectures to evaluate: canonical, distinct, and not among those kept if the space is large enough."""
        space, number = state.space, self.population
        bank, per_strategy, dims = state.scores.shape
        strategy, parameters, _ = _build_strategy(self._strategy_name(), per_strategy, dims)
        draw, again, fresh, wake = jax.random.split(jax.random.fold_in(state.key, state.step), 4)
        with _relaxed_promotion():
            asked = jax.vmap(strategy.ask, (0, 0, None))
            scores, strategies = asked(jax.random.split(draw, bank), state.strategies, parameters)
        # Candidates are interleaved by strategy, so that a population that they do not divide cuts off as many of each.
        rows = scores.swapaxes(0, 1).reshape(bank * per_strategy, dims)

        def first_step() -> tuple[Int[Array, "pop genes"], Float[Array, "all dims"]]:
            return state.archs, jnp.concatenate([_scores_with_archs(space, rows[:number], state.archs), rows[number:]])

        def continue_search() -> tuple[Int[Array, "pop genes"], Float[Array, "all dims"]]:
            raw = space.fill_inactive(wake, state.archs)
            archs = space.canonical(jnp.resize(_scores_to_archs(space, rows), (number, len(space.genes))))
            return replace_repeated(space, (again, fresh), archs, raw, state.archs, mutation_rate(space, None)), rows

        archs, rows = lax.cond(state.step == 0, first_step, continue_search)
        scores = rows.reshape(per_strategy, bank, dims).swapaxes(0, 1)
        strategies = jax.tree.map(_cast_like, strategies, state.strategies)
        return archs, replace(state, step=state.step + 1, strategies=strategies, scores=scores)

    @partial(jax.jit, static_argnums=0)
    def tell(
        self,
        state: BankState,
        archs: Population,
        objectives: Objectives,
        violations: Violations | None = None,
    ) -> BankState:
        """Keeps the best rows of those kept and `archs` (any number), and updates each strategy with its own candidates."""
        space = state.space
        bank, per_strategy, dims = state.scores.shape
        strategy, parameters, by_population = _build_strategy(self._strategy_name(), per_strategy, dims)
        archs = space.canonical(jnp.asarray(archs))
        updated: BankState = NSGA2(self.population).tell(state, archs, objectives, violations)  # type: ignore[assignment]
        values = penalised(jnp.asarray(objectives, state.objectives.dtype), violations)

        # A candidate may have been replaced, in `ask` or by a tactic: its value is then looked up, or counts as the worst.
        candidates = space.canonical(_scores_to_archs(space, state.scores.reshape(bank * per_strategy, dims)))
        seen, seen_values = jnp.concatenate([archs, updated.archs]), jnp.concatenate([values, updated.objectives])
        found = _look_up(jnp.asarray(candidates), seen, seen_values).reshape(bank, per_strategy, -1)
        towards = directions(values.shape[1], bank)
        fitness = _fitness(found, updated.objectives, towards)
        before, members = state.strategies, state.members
        if by_population:
            # Scaling changes with the front: recompute old fitness values, or they could never be improved on.
            known = ~jnp.isnan(members).any(axis=2)
            before = before.replace(fitness=jnp.where(known, _fitness(members, updated.objectives, towards), before.fitness))
        with _relaxed_promotion():
            tells = jax.vmap(strategy.tell, (0, 0, 0, 0, None))
            keys = jax.random.split(jax.random.fold_in(state.key, -state.step), bank)
            strategies, _ = tells(keys, state.scores, fitness, before, parameters)
        if by_population:
            sources = jnp.concatenate([state.scores, before.population], axis=1)
            members = jax.vmap(_look_up)(strategies.population, sources, jnp.concatenate([found, members], axis=1))
        return replace(updated, strategies=jax.tree.map(_cast_like, strategies, state.strategies), members=members)

    def _strategy_name(self) -> str:
        return self.evosax

    def _split_population(self, objectives: int) -> tuple[int, int]:
        """The number of strategies, and of candidates for each: at least 4 and even, as several strategies require."""
        bank = 1 if objectives == 1 else max(1, min(self.weights, self.population // 4))
        return bank, max(4, 2 * -(-self.population // (2 * bank)))


@dataclass(frozen=True)
class CMAES(StrategyBank):
    """CMA-ES (Hansen and Ostermeier 2001)."""

    evosax = "CMA_ES"


@dataclass(frozen=True)
class SNES(StrategyBank):
    """Separable natural evolution strategy (Schaul et al. 2011)."""

    evosax = "SNES"


@dataclass(frozen=True)
class SepCMAES(StrategyBank):
    """CMA-ES with a diagonal covariance (Ros and Hansen 2008)."""

    evosax = "Sep_CMA_ES"


@dataclass(frozen=True)
class DifferentialEvolution(StrategyBank):
    """Differential evolution (Storn and Price 1997)."""

    evosax = "DifferentialEvolution"


@dataclass(frozen=True)
class Evosax(StrategyBank):
    """Any evosax strategy, named by `strategy`; raises ConfigError for an unknown one."""

    strategy: str = "Open_ES"

    def __post_init__(self):
        super().__post_init__()
        if self.strategy not in EVOSAX_STRATEGIES:
            raise ConfigError(f"algorithm.strategy {self.strategy!r} is unknown; allowed: {', '.join(EVOSAX_STRATEGIES)}")

    def _strategy_name(self) -> str:
        return self.strategy


@lru_cache(maxsize=64)
def _build_strategy(name: str, population: int, dims: int) -> tuple[Any, Any, bool]:
    """The strategy, its parameters, and whether it starts from a population; cached, as another object recompiles."""
    with jax.ensure_compile_time_eval(), _relaxed_promotion():
        # Imported inside this context, because evosax computes constants on import, which would be tracers inside jit.
        from evosax.algorithms import algorithms, population_based_algorithms

        strategy = algorithms[name](population, jnp.zeros(dims))
        return strategy, strategy.default_params, name in population_based_algorithms


def _relaxed_promotion():
    """Allows implicit promotion of dtypes and ranks, which evosax relies on."""
    stack = ExitStack()
    stack.enter_context(jax.numpy_dtype_promotion("standard"))
    stack.enter_context(jax.numpy_rank_promotion("allow"))
    return stack


def _strongly_typed(leaf: Any) -> Array:
    """`leaf` without weak type, so that the first step compiles to the same program as the others."""
    leaf = jnp.asarray(leaf)
    return leaf if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else lax.convert_element_type(leaf, leaf.dtype)


def _cast_like(leaf: Any, before: Array) -> Array:
    """`leaf` in the dtype of `before`, unless it is a PRNG key."""
    return leaf if jnp.issubdtype(before.dtype, jax.dtypes.prng_key) else lax.convert_element_type(leaf, before.dtype)


def _reals_per_gene(space: SearchSpace) -> tuple[int, ...]:
    """The number of reals that encode each gene: one per option, or one in all for an ordered gene with many options."""
    return tuple(
        len(gene.options) if not gene.ordered or len(gene.options) <= MAX_SCORED_OPTIONS else 1 for gene in space.genes
    )


def _score_columns(space: SearchSpace) -> Int[np.ndarray, "genes options"]:
    """The column of each gene's and option's score; one past the last column for options that a gene does not have."""
    widths = _reals_per_gene(space)
    starts = np.cumsum((0, *widths))
    options = np.arange(max(widths, default=1))
    return np.where(options < np.array(widths)[:, None], starts[:-1, None] + options, starts[-1])


def _single_real_genes(space: SearchSpace) -> tuple[Int[np.ndarray, " some"], Float[np.ndarray, " some"]]:
    """The positions of genes that are encoded by one real, and their numbers of options."""
    some = np.flatnonzero(np.array(_reals_per_gene(space)) < np.array(space.counts))
    return some, np.array(space.counts, np.float32)[some]


def _scores_by_gene(space: SearchSpace, rows: Float[Array, "pop dims"]) -> Float[Array, "pop genes options"]:
    """Scores arranged as (pop, genes, options), -inf for options that a gene does not have."""
    rows = jnp.nan_to_num(rows, nan=-3e38, posinf=3e38, neginf=-3e38)
    return jnp.pad(rows, ((0, 0), (0, 1)), constant_values=-jnp.inf)[:, _score_columns(space)]


def _scores_to_archs(space: SearchSpace, rows: Float[Array, "pop dims"]) -> Int[Array, "pop genes"]:
    """Non-canonical architectures: the option with the highest score; a single real is mapped by the normal distribution."""
    scores = _scores_by_gene(space, rows)
    some, counts = _single_real_genes(space)
    placed = jnp.floor(ndtr(scores[:, some, 0]) * counts[None])
    archs = scores.argmax(axis=2).astype(jnp.int32)
    return archs.at[:, some].set(jnp.minimum(placed, counts[None] - 1).astype(jnp.int32))


def _scores_with_archs(space: SearchSpace, rows: Float[Array, "pop dims"], archs: Population) -> Float[Array, "pop dims"]:
    """`rows` changed to encode `archs`: the highest score of each gene is swapped with that of the wanted option."""
    scores, archs = _scores_by_gene(space, rows), jnp.asarray(archs)
    archs = jnp.where(space.active(archs), archs, _scores_to_archs(space, rows))
    top, wanted = scores.argmax(axis=2)[..., None].astype(jnp.int32), archs[..., None]
    option = jnp.broadcast_to(jnp.arange(scores.shape[2]), scores.shape)
    swapped = jnp.where(option == wanted, top, jnp.where(option == top, wanted, option))
    swapped = jnp.take_along_axis(scores, swapped, axis=2)
    some, counts = _single_real_genes(space)
    swapped = swapped.at[:, some, 0].set(ndtri((archs[:, some].astype(jnp.float32) + 0.5) / counts[None]))
    return rows.at[:, _score_columns(space).ravel()].set(swapped.reshape(len(rows), -1), mode="drop")


def _look_up(
    rows: Num[Array, "pop columns"], sources: Num[Array, "all columns"], values: Float[Array, "all obj"]
) -> Float[Array, "pop obj"]:
    """The values of the first of `sources` that equals each row; NaN if there is none."""
    same = (rows[:, None] == sources[None]).all(axis=2)
    return jnp.where(same.any(axis=1)[:, None], values[same.argmax(axis=1)], jnp.nan)


def _fitness(
    values: Float[Array, "bank each obj"], best: Float[Array, "pop obj"], towards: Float[np.ndarray, "bank obj"]
) -> Float[Array, "bank each"]:
    """The value that each strategy minimises; finite, because some strategies take means."""

    def along(values: Float[Array, "each obj"], direction: Float[Array, " obj"]) -> Float[Array, " each"]:
        front = jnp.concatenate([non_dominated(best), jnp.zeros(len(values), bool)])
        return chebyshev(normalised(jnp.concatenate([best, values]), front)[len(best) :], direction[None])[0]

    if values.shape[2] == 1:
        # A single objective needs no direction and no scaling.
        scores = jnp.where(values < PENALTY_THRESHOLD, values, 1e15 * jnp.log10(values))[..., 0]
    else:
        scores = jax.vmap(along)(values, jnp.asarray(towards))
    return jnp.clip(jnp.nan_to_num(scores, nan=1e17), -1e17, 1e17)
