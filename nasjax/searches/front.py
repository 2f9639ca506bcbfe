"""The result of a search: the networks of its Pareto front, to be selected and extracted."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from nasjax.deploy.subnet import Extracted
from nasjax.errors import ConfigError
from nasjax.jax_defaults import with_jax_defaults
from nasjax.objectives import Objective, parse_constraint
from nasjax.pareto import knee
from nasjax.searches.history import History
from nasjax.searches.problem import SearchProblem
from nasjax.space import Option, SearchSpace


@dataclass(frozen=True, eq=False)
class Chosen:
    """One network of a front.

    `index` is its position among the run's evaluations, `arch` its option indices, `choices` its options by gene name;
    `metrics` are in natural signs and units.
    """

    index: int
    arch: tuple[int, ...]
    choices: Mapping[str, Option]
    metrics: Mapping[str, float]
    problem: SearchProblem = field(repr=False)

    @with_jax_defaults
    def extract(self) -> Extracted:
        """The sub-network as a network without genes, re-calibrated and verified.

        Raises ConfigError where a table or a function was searched: these have no networks.
        """
        if self.problem.extract is None:
            raise ConfigError("a table was searched: it has no networks to extract")
        return self.problem.extract(self.arch)


@dataclass(frozen=True, eq=False)
class Front:
    """The Pareto front of a search: the networks that no other dominates, the best in the first objective first.

    `archs` has one row of option indices a network; `metrics` one value a network by name, in natural signs and units,
    `test_…` for those on test data, which the search does not use. `indices` are the networks' positions among the run's
    evaluations, `folder` is the run folder. The hypervolume's reference point is that of the objectives.
    """

    space: SearchSpace
    objectives: Sequence[Objective]
    indices: Int[np.ndarray, " networks"]
    archs: Int[np.ndarray, "networks genes"]
    metrics: Mapping[str, Float[np.ndarray, " networks"]]
    hypervolume: float
    folder: Path | None
    problem: SearchProblem = field(repr=False)

    def __len__(self) -> int:
        return len(self.archs)

    def __getitem__(self, i: int) -> Chosen:
        arch = tuple(map(int, self.archs[i]))
        metrics = {name: float(column[i]) for name, column in self.metrics.items()}
        return Chosen(int(self.indices[i]), arch, self.space.decode(self.archs[i]), metrics, self.problem)

    def select(self, *constraints: str) -> Chosen:
        """The network that is best in the first objective among those that keep all constraints: `select("macs<=2e5")`.

        Constraints may name genes: they hold where a gene is switched off. Raises ConfigError for a constraint that cannot
        be parsed, or that no network of the front keeps.
        """
        kept = np.ones(len(self), bool)
        for constraint in constraints:
            limit = parse_constraint(constraint, [*self.metrics, *self.space.names])
            genes = [choices.get(limit.name, limit.bound) for choices in self.networks()]
            kept &= limit.holds(self.metrics if limit.name in self.metrics else {limit.name: np.array(genes)})
        if not kept.any():
            ranges = ", ".join(
                f"{goal.name} {self.metrics[goal.name].min():.6g} to {self.metrics[goal.name].max():.6g}"
                for goal in self.objectives
                if len(self)
            )
            raise ConfigError(f"no network of the front keeps {' and '.join(constraints)}; it has {ranges or 'none'}")
        return self[int(np.flatnonzero(kept)[0])]

    def knee(self) -> Chosen:
        """The network of the best trade-off: beyond it a gain in one objective costs much of another (`pareto.knee`).

        Raises ConfigError for an empty front.
        """
        if not len(self):
            raise ConfigError("the front has no network: every evaluation failed, or broke a constraint")
        values = [goal.sign * np.asarray(self.metrics[goal.name], np.float64) for goal in self.objectives]
        return self[knee(np.stack(values, axis=1))]

    def networks(self) -> list[dict[str, Option]]:
        """The chosen option of every gene by name, for every network."""
        return [self.space.decode(arch) for arch in self.archs]


def front_of(
    history: History, best: Int[np.ndarray, " networks"], test: Mapping[str, np.ndarray], folder: Path | None
) -> Front:
    """The front whose networks are the rows `best` of the history, with their metrics and those on test data."""
    columns = history.metrics | history.predicted_latency | history.standard_errors
    return Front(
        space=history.problem.space,
        objectives=history.goals.objectives,
        indices=np.array([history.rows[i].position for i in best], int),
        archs=history.archs[best],
        metrics={name: column[best] for name, column in columns.items()} | dict(test),
        hypervolume=history.hypervolume,
        folder=folder,
        problem=history.problem,
    )
