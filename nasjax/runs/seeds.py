"""Reads the folder of searches with many seeds: the objectives of every evaluation, by seed."""

import csv
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from nasjax.errors import ConfigError, naming_damage
from nasjax.host import parse_json, read_text
from nasjax.objectives import Objective
from nasjax.runs.folder import DAMAGED_CONFIG, SEEDS_CSV, SEEDS_JSON, parse_settings

AGAIN = "run the same command with another run="
"""What to do about damaged files."""


@dataclass(frozen=True, eq=False)
class SeedsFolder:
    """Searches that differ in their seed alone, as their folder states them.

    `values` has for every seed the objectives of its evaluations in order, in their own sign; a row is NaN where an
    evaluation failed or broke a constraint.
    """

    folder: Path
    settings: Mapping[str, Any]
    objectives: tuple[Objective, ...]
    values: Mapping[int, Float[np.ndarray, "evaluations obj"]]


@dataclass(frozen=True)
class SeedsState:
    """How far searches with many seeds are: `done` of `planned` seeds in `seconds`; the first `size` bytes of the table."""

    settings: Mapping[str, Any]
    objectives: tuple[Objective, ...]
    done: int
    planned: int
    seconds: float
    size: int


def read_seeds_state(folder: Path) -> SeedsState:
    """Reads seeds.json and config.yaml. Raises ConfigError where one is damaged."""
    with naming_damage(folder / SEEDS_JSON, AGAIN):
        state = parse_json(read_text(folder / SEEDS_JSON))
        objectives = tuple(
            Objective(o["name"], o["direction"], str(o["unit"] or ""), float(o["reference"])) for o in state["objectives"]
        )
        if not objectives or any(o.direction not in ("max", "min") or not math.isfinite(o.reference) for o in objectives):
            raise ConfigError("'objectives' needs at least one, each with the direction max or min and a reference")
        done, planned, size = (int(state[name]) for name in ("done", "planned", "bytes"))
        seconds = float(state["seconds"])
    with naming_damage(folder / "config.yaml", DAMAGED_CONFIG):
        settings = parse_settings(read_text(folder / "config.yaml"))
    return SeedsState(settings, objectives, done, planned, seconds, size)


def read_seeds(folder: Path) -> SeedsFolder:
    """Reads seeds.json, seeds.csv and config.yaml. Raises ConfigError where one is damaged, or nothing is done."""
    state = read_seeds_state(folder)
    if not state.done:
        raise ConfigError(f"{folder} has no seed that is done; run the same command again to resume it")
    with naming_damage(folder / SEEDS_CSV, AGAIN):
        text = read_text(folder / SEEDS_CSV).encode()[: state.size].decode()  # What is beyond is of a seed that is not done.
        values = _read_values(text, [objective.name for objective in state.objectives])
        if len(values) != state.done:
            raise ConfigError(f"it has {len(values)} seeds where {SEEDS_JSON} counts {state.done}")
    return SeedsFolder(folder, state.settings, state.objectives, values)


def _read_values(text: str, names: list[str]) -> dict[int, Float[np.ndarray, "evaluations obj"]]:
    """The objectives by seed. Raises ConfigError for a missing column, and ValueError for what is no number."""
    reader = csv.reader(text.splitlines(), strict=True)
    header = next(reader, [])
    if missing := [name for name in ("seed", "status", *names) if name not in header]:
        raise ConfigError(f"it has no column {missing[0]!r}")
    seed, status, *columns = (header.index(name) for name in ("seed", "status", *names))
    nothing = [math.nan] * len(names)
    values: dict[int, list[list[float]]] = {}
    for row in reader:
        if len(row) != len(header):
            raise ConfigError(f"line {reader.line_num} has {len(row)} values for {len(header)} columns")
        numbers = [float(row[column]) for column in columns] if row[status] == "ok" else nothing
        values.setdefault(int(row[seed]), []).append(numbers if all(map(math.isfinite, numbers)) else nothing)
    return {seed: np.array(rows) for seed, rows in values.items()}
