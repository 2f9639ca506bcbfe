"""The folder of searches with many seeds: seeds.csv has an evaluation a row, seeds.json says how far they are."""

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nasjax.errors import naming_damage
from nasjax.host import parse_json, read_text, write_text
from nasjax.pareto import hypervolume_exact
from nasjax.runs.archive import digest
from nasjax.runs.folder import DAMAGED_CONFIG, SEEDS_CSV, SEEDS_JSON, run_folder, table_text
from nasjax.searches.seeds import Runs, SeedSearches
from nasjax.version import __version__


@dataclass(frozen=True)
class SeedsProgress:
    """How many seeds are done and planned, and the median of the hypervolumes that those of this process ended with."""

    done: int
    planned: int
    hypervolume: float


def write_seeds(searches: SeedSearches, folder: Path, first: int, number: int) -> Iterator[SeedsProgress]:
    """Searches for the seeds from `first` on, `number` of them, and writes each into the folder; yields after each.

    A folder that is there is resumed, with more seeds, too. Raises ConfigError as `run_folder` does.
    """
    record = searches.settings.record(searches.problem.origin) | {"seed": first, "seeds": number}
    ended: list[float] = []
    with run_folder(folder, record, digest(searches.problem.identity), grows="seeds"):
        table, state = folder / SEEDS_CSV, _read_state(folder)
        if state is None:
            table.write_text(table_text(_header(searches), []), encoding="utf-8")
            state = {"done": 0, "bytes": table.stat().st_size, "seconds": 0.0}
        with table.open("r+b") as file:
            file.truncate(state["bytes"])  # What a killed process left of a seed.
            began, spent = time.monotonic(), state["seconds"]
            _write_state(searches, folder, state, number)
            for runs in searches.runs(range(first + state["done"], first + number)):
                file.seek(0, 2)
                file.write(table_text(_header(searches), _rows(searches, runs)).split("\n", 1)[1].encode())
                file.flush()
                state["done"] += len(runs.seeds)
                state |= {"bytes": file.tell(), "seconds": spent + time.monotonic() - began}
                _write_state(searches, folder, state, number)
                values = [runs.goals.feasible(each) for each in runs.values]
                ended += [hypervolume_exact(each, runs.goals.reference) for each in values]
                yield SeedsProgress(state["done"], number, float(np.median(ended)))


def _read_state(folder: Path) -> dict[str, Any] | None:
    """What `_write_state` has written; None where nothing is. Raises ConfigError where it is damaged."""
    if not (folder / SEEDS_JSON).is_file():
        return None
    with naming_damage(folder / SEEDS_JSON, DAMAGED_CONFIG):
        state = parse_json(read_text(folder / SEEDS_JSON))
        return {"done": int(state["done"]), "bytes": int(state["bytes"]), "seconds": float(state["seconds"])}


def _write_state(searches: SeedSearches, folder: Path, state: Mapping[str, Any], number: int) -> None:
    goals = searches.goals
    objectives = [
        {"name": goal.name, "direction": goal.direction, "unit": goal.unit, "reference": goal.sign * value}
        for goal, value in zip(goals.objectives, goals.reference.tolist(), strict=True)
    ]
    known = {"version": __version__, "complete": state["done"] == number, "planned": number, "objectives": objectives}
    write_text(folder / SEEDS_JSON, json.dumps({**known, **state}, indent=1))


def _header(searches: SeedSearches) -> list[str]:
    names = searches.problem.space.names
    return ["seed", "index", "status", *names, *(c.name for c in searches.goals.columns if c.name not in names)]


def _rows(searches: SeedSearches, runs: Runs) -> list[list[Any]]:
    """A row an evaluation: its genes, and the metrics that are objectives or have constraints, in their own sign."""
    space, columns = searches.problem.space, searches.goals.columns
    shown = [i for i, column in enumerate(columns) if column.name not in space.names]
    signs, rows = np.array([columns[i].sign for i in shown]), []
    for seed, archs, values in zip(runs.seeds, runs.archs, runs.values, strict=True):
        failed, infeasible = np.isnan(values).any(1), np.isnan(searches.goals.feasible(values)).any(1)
        status = np.where(failed, "failed", np.where(infeasible, "infeasible", "ok")).tolist()
        metrics = (signs * values[:, shown]).tolist()
        options = space.options_of(archs)
        rows += [[seed, i, status[i], *options[i], *metrics[i]] for i in range(len(archs))]
    return rows
