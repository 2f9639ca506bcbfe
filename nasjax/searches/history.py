"""A run's evaluations in order, as arrays: architectures, metrics, minimised values, and which of them are the front."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from nasjax.errors import FAILURE
from nasjax.objectives import Goals
from nasjax.pareto import hypervolume_exact, non_dominated_exact
from nasjax.runs.archive import Evaluation
from nasjax.searches.problem import SearchProblem


@dataclass(frozen=True, eq=False)
class History:
    """The evaluations of one run, oldest first, and their values for its problem and goals.

    `over`: whether the search is; only then are latencies predicted, see `predicted_latency`.
    """

    problem: SearchProblem
    goals: Goals
    rows: Sequence[Evaluation]
    over: bool = False

    @cached_property
    def archs(self) -> Int[np.ndarray, "evaluations genes"]:
        """The architectures that were evaluated."""
        return np.array([row.arch for row in self.rows], np.int32).reshape(-1, len(self.problem.space.genes))

    @cached_property
    def metrics(self) -> dict[str, np.ndarray]:
        """Every metric by name, measured ones first, then exact costs; natural signs and units."""
        measured = {name: self._measured(name) for name in self.problem.evaluator.metrics}
        return measured | self.problem.compute(self.archs)

    @cached_property
    def standard_errors(self) -> dict[str, np.ndarray]:
        """The standard errors that were measured, by name (`accuracy_top1_se`); none without evaluations."""
        names = [f"{name}_se" for name in self.problem.evaluator.metrics]
        return {name: self._measured(name) for name in names if self.rows and name in self.rows[0].metrics}

    def _measured(self, name: str) -> Float[np.ndarray, " evaluations"]:
        return np.array([row.metrics[name] for row in self.rows], np.float64)

    @cached_property
    def predicted_latency(self) -> dict[str, np.ndarray]:
        """`latency_predicted` where latencies were measured: what the search's latency model says of the same networks.

        The model compiles for every new number of evaluations: without values until the search is over.
        """
        if not self.over or not self.rows or "latency_measured" not in self.metrics:
            return {}
        return {"latency_predicted": self.problem.estimates["latency"].exact(self.archs)}

    @cached_property
    def values(self) -> Float[np.ndarray, "evaluations columns"]:
        """The goals' columns, minimised; a row is NaN where any measured metric is not finite: the evaluation failed."""
        names = self.problem.evaluator.metrics
        finite = [all(np.isfinite(row.metrics[name]) for name in names) for row in self.rows]
        genes = {name: gene.exact(self.archs) for name, gene in self.problem.bounded_genes(self.goals).items()}
        values = self.goals.minimised(self.metrics | genes)
        return np.where(np.array(finite, bool).reshape(-1, 1), values, np.nan)

    @cached_property
    def objectives(self) -> Float[np.ndarray, "evaluations obj"]:
        """The objectives, minimised; a row is NaN where the evaluation failed or breaks a constraint."""
        return self.goals.feasible(self.values)

    def failures(self) -> dict[str, list[int]]:
        """The evaluations that failed, by what their evaluator said of them; the most frequent reason first."""
        rows: dict[str, list[int]] = {}
        for i in np.flatnonzero(self.failed).tolist():
            if reason := self.rows[i].failure:
                rows.setdefault(reason, []).append(i)
        return dict(sorted(rows.items(), key=lambda item: -len(item[1])))

    @property
    def failed(self) -> Bool[np.ndarray, " evaluations"]:
        """Which evaluations failed."""
        return np.isnan(self.values).any(1)

    @property
    def infeasible(self) -> Bool[np.ndarray, " evaluations"]:
        """Which evaluations did not fail but break a constraint."""
        return np.isnan(self.objectives).any(1) & ~self.failed

    @property
    def hypervolume(self) -> float:
        """The hypervolume of the front, in respect of the goals' reference point."""
        return hypervolume_exact(self.objectives, self.goals.reference)

    def table(self) -> tuple[list[str], list[list[Any]]]:
        """Header and rows, one row an evaluation, with the options of its genes, every metric and its standard error.

        A column says why evaluations failed, where their evaluator did.
        """
        metrics, errors = self.metrics | self.predicted_latency, self.standard_errors
        status = np.where(self.failed, "failed", np.where(self.infeasible, "infeasible", "ok")).tolist()
        options = self.problem.space.options_of(self.archs)
        values = [[column[i].item() for column in (*metrics.values(), *errors.values())] for i in range(len(self.rows))]
        reasons = [[row.failure] for row in self.rows] if self.failures() else [[]] * len(self.rows)
        rows = [
            [row.position, row.step, status[i], row.source, *options[i], *values[i], *reasons[i], row.seconds]
            for i, row in enumerate(self.rows)
        ]
        reason = [FAILURE] if self.failures() else []
        names = self.problem.space.names
        return ["index", "step", "status", "source", *names, *metrics, *errors, *reason, "seconds"], rows

    def front(self) -> Int[np.ndarray, " networks"]:
        """Rows of the Pareto front, the best in the first objective first, each architecture once."""
        if not len(self.rows):
            return np.zeros(0, int)
        best = np.flatnonzero(non_dominated_exact(self.objectives))
        best = best[np.lexsort(self.objectives[best].T[::-1])]
        first = np.sort(np.unique(self.archs[best], axis=0, return_index=True)[1])
        return best[first]
