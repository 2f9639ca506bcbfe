"""What a search leaves: the front, with its quality on unseen data, and the files of the run folder."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from nasjax.deploy.subnet import Extracted
from nasjax.errors import ConfigError
from nasjax.host import write_text
from nasjax.objectives import Goals, Objective, parse_constraint
from nasjax.pareto import hypervolume_exact, hypervolumes, knee, non_dominated_exact
from nasjax.runs.archive import Archive, Evaluation
from nasjax.runs.folder import plain, write_table
from nasjax.searches.measure import measuring
from nasjax.searches.problem import SearchProblem
from nasjax.space import Option, SearchSpace
from nasjax.tactics import Reduced
from nasjax.version import __version__


@dataclass(frozen=True, eq=False)
class Chosen:
    """One network of a front: its place in the run's evaluations, what it is, its `metrics` in natural signs and units."""

    index: int
    arch: tuple[int, ...]
    choices: Mapping[str, Option]
    metrics: Mapping[str, float]
    problem: SearchProblem = field(repr=False)

    def extract(self) -> Extracted:
        """The network on its own, re-calibrated and checked. Raises ConfigError where a table was searched, not networks."""
        if self.problem.extract is None:
            raise ConfigError("a table was searched: it has no networks to extract")
        return self.problem.extract(self.arch)


@dataclass(frozen=True, eq=False)
class Front:
    """The networks that no other beats, the best in the first objective first.

    `archs` (networks, genes); `metrics`: name -> one value a network, in natural signs and units, `test_…` for those on data
    that the search never saw. `indices` are their places in the run's evaluations, `folder` is where it was written.
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
        """The best in the first objective of those that keep within all constraints: `front.select("macs<=2e5")`.

        Raises ConfigError for a constraint that cannot be read, or that no network of the front keeps.
        """
        kept = np.ones(len(self), bool)
        for words in constraints:
            kept &= parse_constraint(words, self.metrics).holds(self.metrics)
        if not kept.any():
            nearest = ", ".join(
                f"{goal.name} {self.metrics[goal.name].min():.6g} to {self.metrics[goal.name].max():.6g}"
                for goal in self.objectives
                if len(self)
            )
            raise ConfigError(f"no network of the front keeps {' and '.join(constraints)}; it has {nearest or 'none'}")
        return self[int(np.flatnonzero(kept)[0])]

    def knee(self) -> Chosen:
        """The network where giving up a little of one objective stops gaining much of another (`nasjax.pareto.knee`).

        Raises ConfigError for a front without networks.
        """
        if not len(self):
            raise ConfigError("the front has no network: every evaluation failed, or broke a constraint")
        values = [goal.sign * np.asarray(self.metrics[goal.name], np.float64) for goal in self.objectives]
        return self[knee(np.stack(values, axis=1))]

    def networks(self) -> list[dict[str, Option]]:
        """The named choices of every network."""
        return [self.space.decode(arch) for arch in self.archs]


def architectures(problem: SearchProblem, rows: Sequence[Evaluation]) -> Int[np.ndarray, "pop genes"]:
    """The architectures of a run's evaluations."""
    return np.array([row.arch for row in rows], np.int32).reshape(-1, len(problem.space.genes))


def metric_values(problem: SearchProblem, rows: Sequence[Evaluation]) -> dict[str, np.ndarray]:
    """Every metric of a run's evaluations, measured or computed, natural signs."""
    measured = {name: np.array([row.metrics[name] for row in rows], np.float64) for name in problem.evaluator.metrics}
    return measured | problem.compute(architectures(problem, rows))


def all_values(problem: SearchProblem, rows: Sequence[Evaluation]) -> dict[str, np.ndarray]:
    """Every metric, and where latencies were measured beside them what the search's latency model says of these networks.

    The model compiles for every new number of rows: this is for what a search leaves, not for its steps.
    """
    known = metric_values(problem, rows)
    if rows and "latency_measured" in known:
        known["latency_predicted"] = problem.estimates["latency"].exact(architectures(problem, rows))
    return known


def goal_values(problem: SearchProblem, goals: Goals, rows: Sequence[Evaluation]) -> Float[np.ndarray, "pop columns"]:
    """The goals' columns of a run's evaluations, minimised; NaN where one failed: where any metric is not finite."""
    values = goals.minimised(metric_values(problem, rows))
    failed = [not all(np.isfinite(row.metrics[name]) for name in problem.evaluator.metrics) for row in rows]
    return np.where(np.array(failed, bool).reshape(-1, 1), np.nan, values)


def finish(
    problem: SearchProblem,
    goals: Goals,
    store: Archive,
    folder: Path | None,
    settings: Mapping[str, Any],
    seconds: float,
    complete: bool,
    test: bool = True,
) -> Front:
    """The front, with `test` measured on the test data if there are some; with a folder, tables and summary are written.

    `complete`: the budget was spent, or the space exhausted.
    """
    rows = store.evaluations()
    values = goal_values(problem, goals, rows)
    failed = np.isnan(values).any(1)
    values = goals.feasible(values)
    best = np.flatnonzero(non_dominated_exact(values)) if len(rows) else np.zeros(0, int)
    best = best[np.lexsort(values[best].T[::-1])]
    best = best[np.sort(np.unique(architectures(problem, rows)[best], axis=0, return_index=True)[1])]
    archs = architectures(problem, rows)[best]
    began = time.monotonic()
    columns = all_values(problem, rows)
    metrics = {name: column[best] for name, column in columns.items()} | _errors(rows, best)
    if test:
        metrics |= _test_metrics(problem, store, archs)
    positions = np.array([rows[i].position for i in best], int)
    volume = hypervolume_exact(values, goals.reference)
    front = Front(problem.space, goals.objectives, positions, archs, metrics, volume, folder, problem)
    if folder is not None:
        _write_tables(problem, rows, columns, failed, np.isnan(values).any(1), front)
        times = {"total": seconds + time.monotonic() - began, "test": time.monotonic() - began,
                 "evaluation": sum(row.seconds for row in rows if row.source == "measured")}  # fmt: skip
        fits = store.fits()
        write_table(folder / "predictors.csv", ["step", "objective", "rows", "mape", "rmse", "tau", "chosen"], fits)
        options = store.reduction()
        reduced = None if options is None else _reduction(Reduced(problem.space, options))
        _write_summary(problem, goals, rows, list(columns), values, failed, settings, times, complete, reduced, folder)
    return front


def _reduction(reduced: Reduced) -> dict[str, Any]:
    """What the search space was reduced to, in words."""
    return {"size": str(reduced.space.size), "dropped": reduced.dropped()}


def _errors(rows: Sequence[Evaluation], best: Int[np.ndarray, " networks"]) -> dict[str, np.ndarray]:
    names = [name for name in rows[0].metrics if name.endswith("_se")] if rows else []
    return {name: np.array([rows[i].metrics[name] for i in best]) for name in names}


def _test_metrics(problem: SearchProblem, store: Archive, archs: Int[np.ndarray, "networks genes"]) -> dict[str, np.ndarray]:
    """Every measured metric of the front on the test data, found in the archive or measured and stored there."""
    if problem.test is None or not len(archs):
        return {}
    evaluator = problem.test()
    context = store.describe(evaluator.context)
    for _ in measuring(evaluator, store, context, archs):
        pass
    found = [known for known in store.find(context, archs) if known is not None]
    return {f"test_{name}": np.array([row[name] for row in found]) for name in found[0]}


def _write_tables(
    problem: SearchProblem,
    rows: Sequence[Evaluation],
    columns: Mapping[str, np.ndarray],
    failed: Bool[np.ndarray, " pop"],
    out: Bool[np.ndarray, " pop"],
    front: Front,
) -> None:
    """`evaluations.csv` (values: `columns`) and `pareto.csv`; rows `out` count nothing: `failed`, or out of bounds."""
    assert front.folder is not None
    errors = [name for name in rows[0].metrics if name.endswith("_se")] if rows else []
    status = np.where(failed, "failed", np.where(out, "infeasible", "ok")).tolist()

    def words(row: Evaluation) -> list[Any]:
        chosen = problem.space.decode(np.array(row.arch, np.int32))
        return [chosen.get(name, "") for name in problem.space.names]

    table = [
        [row.position, row.step, status[i], row.source, *words(row),
         *(column[i].item() for column in columns.values()), *(row.metrics[name] for name in errors), row.seconds]
        for i, row in enumerate(rows)
    ]  # fmt: skip
    header = ["index", "step", "status", "source", *problem.space.names, *columns, *errors, "seconds"]
    write_table(front.folder / "evaluations.csv", header, table)
    at = {row.position: row for row in rows}
    names = [goal.name for goal in front.objectives]
    shown = [*names, *(name for name in errors if name.removesuffix("_se") in names)]
    shown += [f"test_{name}" for name in shown if f"test_{name}" in front.metrics]
    table = [
        [index, *words(at[index]), *(front.metrics[name][i].item() for name in shown)]
        for i, index in enumerate(front.indices.tolist())
    ]
    write_table(front.folder / "pareto.csv", ["index", *problem.space.names, *shown], table)


def _write_summary(
    problem: SearchProblem,
    goals: Goals,
    rows: Sequence[Evaluation],
    metrics: Sequence[str],
    values: Float[np.ndarray, "pop obj"],
    failed: Bool[np.ndarray, " pop"],
    settings: Mapping[str, Any],
    times: Mapping[str, float],
    complete: bool,
    reduced: Mapping[str, Any] | None,
    folder: Path,
) -> None:
    """`summary.json`."""
    summary = {
        "supernet": settings["supernet"]["name"],
        "task": settings["task"] and settings["task"]["name"],
        "tactic": settings["tactic"]["name"],
        "seed": settings["seed"],
        "evaluations": len(rows),
        "complete": complete,
        "failed": int(failed.sum()),
        "infeasible": int(np.isnan(values).any(1).sum() - failed.sum()),
        "constraints": [f"{c.name}{'>=' if c.least else '<='}{c.bound:.10g}" for c in goals.constraints],
        "from_archive": sum(row.source == "archive" for row in rows),
        "space_size": str(problem.space.size),
        "reduced": reduced,
        "genes": list(problem.space.names),
        "options": {gene.name: gene.options for gene in problem.space.genes},
        "blocks": [asdict(block) for block in problem.blocks],
        "largest": _largest(problem),
        "metrics": metrics,
        "objectives": [
            {"name": goal.name, "direction": goal.direction, "unit": goal.unit, "reference": goal.sign * value}
            for goal, value in zip(goals.objectives, goals.reference.tolist(), strict=True)
        ],
        "hypervolume": hypervolumes(values, goals.reference),
        "seconds": dict(times),
        "version": __version__,
    }
    write_text(folder / "summary.json", json.dumps(plain(summary), indent=1))


def _largest(problem: SearchProblem) -> dict[str, Any] | None:
    """The largest network's choices and exact costs; None where options have no order, or where it cannot be measured."""
    arch = problem.space.largest()
    known = problem.rows is None or bool((np.asarray(problem.rows) == arch).all(1).any())
    if not known or not all(gene.ordered for gene in problem.space.genes):
        return None
    costs = {name: column.item() for name, column in problem.compute(arch[None]).items()}
    return {"genes": problem.space.decode(arch), "costs": costs}
