"""Files of a search in its run folder: evaluations.csv, pareto.csv, predictors.csv and summary.json; `unfinished.json` has
them in one while the search runs."""

import json
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax
import numpy as np

from nasjax.host import command_line, git_commit, processor_name, write_text
from nasjax.pareto import hypervolumes
from nasjax.runs.archive import Archive
from nasjax.runs.folder import plain_data, table_text
from nasjax.runs.reader import UNFINISHED
from nasjax.searches.front import Front, front_of
from nasjax.searches.history import History
from nasjax.searches.problem import SearchProblem
from nasjax.tactics import Reduced
from nasjax.version import __version__

Table = tuple[Sequence[str], Sequence[Sequence[Any]]]
"""Header and rows of a CSV file."""

PREDICTOR_COLUMNS = ("step", "objective", "rows", "mape", "rmse", "tau", "chosen")


def write_results(
    folder: Path,
    history: History,
    front: Front,
    archive: Archive,
    record: Mapping[str, Any],
    seconds: Mapping[str, float],
    complete: bool,
) -> None:
    """Writes all files of a search that is over; `record` is the content of config.yaml, `seconds` the time by part."""
    made = {
        "command": command_line(),
        "finished": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "jax": jax.__version__,
        "python": platform.python_version(),
        "device": processor_name() if jax.default_backend() == "cpu" else jax.devices()[0].device_kind,
        "git commit": git_commit(),
        **history.problem.methods(),
    }
    for name, text in _texts(history, front, archive, record, seconds, complete, made).items():
        write_text(folder / name, text)
    (folder / UNFINISHED).unlink(missing_ok=True)


def write_unfinished(
    folder: Path, history: History, archive: Archive, record: Mapping[str, Any], seconds: Mapping[str, float]
) -> None:
    """Writes `unfinished.json`: the text of each file, as it would be if the search ended now, by its name."""
    front = front_of(history, history.front(), {}, folder)
    made = {"so far": time.strftime("%Y-%m-%d %H:%M:%S %z")}
    write_text(folder / UNFINISHED, json.dumps(_texts(history, front, archive, record, seconds, False, made)))


def _texts(
    history: History,
    front: Front,
    archive: Archive,
    record: Mapping[str, Any],
    seconds: Mapping[str, float],
    complete: bool,
    made: Mapping[str, Any],
) -> dict[str, str]:
    """The text of every file by its name, that of summary.json last; `made` says when and on what."""
    summary = {
        "supernet": record["supernet"]["name"],
        "task": record["task"] and record["task"]["name"],
        "tactic": record["tactic"]["name"],
        "seed": record["seed"],
        **_counts(history, complete),
        **_space(history.problem, archive.reduction()),
        "metrics": [*history.metrics, *history.predicted_latency],
        **_objectives(history),
        "signatures": history.problem.signatures,
        "warning": history.problem.warning(column.name for column in history.goals.columns),
        "seconds": seconds,
        "version": __version__,
        "made": made,
    }
    return {
        "evaluations.csv": table_text(*history.table()),
        "pareto.csv": table_text(*_pareto(history, front)),
        "predictors.csv": table_text(PREDICTOR_COLUMNS, archive.fits()),
        "summary.json": json.dumps(plain_data(summary), indent=1),
    }


def _pareto(history: History, front: Front) -> Table:
    """pareto.csv: one row a network of the front, with its objectives, their standard errors, and both on test data."""
    names = [goal.name for goal in front.objectives]
    shown = [*names, *(name for name in history.standard_errors if name.removesuffix("_se") in names)]
    shown += [f"test_{name}" for name in shown if f"test_{name}" in front.metrics]
    options = front.space.options_of(front.archs)
    rows = [
        [index, *options[i], *(front.metrics[name][i].item() for name in shown)]
        for i, index in enumerate(front.indices.tolist())
    ]
    return ["index", *front.space.names, *shown], rows


def _counts(history: History, complete: bool) -> dict[str, Any]:
    """How many evaluations were made, failed, broke a constraint, or were found in the archive."""
    return {
        "evaluations": len(history.rows),
        "complete": complete,
        "failed": int(history.failed.sum()),
        "failures": [
            {"reason": reason, "evaluations": len(rows), "first": history.problem.space.decode(history.archs[rows[0]])}
            for reason, rows in history.failures().items()
        ],
        "infeasible": int(history.infeasible.sum()),
        "constraints": [f"{c.name}{'>=' if c.least else '<='}{c.bound:.10g}" for c in history.goals.constraints],
        "from_archive": sum(row.source == "archive" for row in history.rows),
    }


def _space(problem: SearchProblem, options: tuple[tuple[int, ...], ...] | None) -> dict[str, Any]:
    """The search space, and what it was reduced to where `options` are those that were kept of every gene."""
    reduced = None if options is None else Reduced(problem.space, options)
    return {
        "space_size": str(problem.space.size),
        "reduced": reduced and {"size": str(reduced.space.size), "dropped": reduced.dropped()},
        "genes": list(problem.space.names),
        "options": {gene.name: gene.options for gene in problem.space.genes},
        "blocks": [asdict(block) for block in problem.blocks],
        "largest": _largest(problem),
    }


def _largest(problem: SearchProblem) -> dict[str, Any] | None:
    """The largest network's options and exact costs; None where options have no order, or where it cannot be measured."""
    arch = problem.space.largest()
    known = problem.rows is None or bool((np.asarray(problem.rows) == arch).all(1).any())
    if not known or not all(gene.ordered for gene in problem.space.genes):
        return None
    costs = {name: column.item() for name, column in problem.compute(arch[None]).items()}
    return {"genes": problem.space.decode(arch), "costs": costs}


def _objectives(history: History) -> dict[str, Any]:
    """The objectives with their reference point, and the hypervolume after every evaluation."""
    goals = history.goals
    return {
        "objectives": [
            {"name": goal.name, "direction": goal.direction, "unit": goal.unit, "reference": goal.sign * value}
            for goal, value in zip(goals.objectives, goals.reference.tolist(), strict=True)
        ],
        "hypervolume": hypervolumes(history.objectives, goals.reference),
    }
