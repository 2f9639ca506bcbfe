"""Reads a finished run folder, and puts its numbers into words."""

from nasjax.errors import ConfigError
import csv
import io
import json
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nasjax.objectives import Objective
from nasjax.runs.space_summary import Space, read_space, stray

RESUME = "run the same command again"
SUMMARY_TYPES: dict[str, Any] = {
    "supernet": str,
    "task": (str, type(None)),
    "tactic": str,
    "seed": int,
    "evaluations": int,
    "failed": int,
    "from_archive": int,
    "space_size": str,
    "genes": list,
    "metrics": list,
    "objectives": list,
    "hypervolume": list,
    "seconds": dict,
    "version": str,
}


@dataclass(frozen=True)
class Network:
    """One row of a run: `genes` has those switched on, as text; `errors` the standard errors, in the metrics' units."""

    index: int
    step: int | None
    failed: bool
    source: str
    genes: dict[str, str]
    metrics: dict[str, float]
    errors: dict[str, float]


@dataclass(frozen=True)
class Run:
    """A finished run: `evaluations` in order of validation, `front` best first objective first, `tests` the front's columns
    that the search never saw, `config` as text; `hypervolume` has one number an evaluation, `space` what drawings need."""

    folder: Path
    summary: dict[str, Any]
    objectives: tuple[Objective, ...]
    evaluations: tuple[Network, ...]
    front: tuple[Network, ...]
    tests: tuple[str, ...]
    hypervolume: tuple[float, ...]
    config: str
    space: Space


def read_run(folder: Path) -> Run:
    """Read the four files of a finished run; ConfigError with one line where one of them is missing or damaged."""
    folder = Path(folder)
    if not folder.is_dir():
        raise ConfigError(f"{folder} is not a run folder: there is no such directory")
    summary, objectives, hypervolume = _read_summary(folder)
    names = [objective.name for objective in objectives]
    genes, metrics = summary["genes"], summary["metrics"]

    rows: dict[int, Network] = {}
    _, table = _read_table(folder, "evaluations.csv", ["index", "step", "status", "source", *genes, *metrics])
    for line, row in table:
        with _damage(folder, f"evaluations.csv, line {line}"):
            network = _network(row, genes, metrics)
            if network.index in rows:
                raise ConfigError(f"index {network.index} stands twice")
            # What has no finite objective was not measured, whatever its status says.
            failed = row["status"] != "ok" or not all(name in network.metrics for name in names)
            step = int(row["step"]) if row["step"] else None
            rows[network.index] = Network(
                network.index, step, failed, row["source"], network.genes, network.metrics, network.errors
            )
    with _damage(folder, "evaluations.csv"):
        if len(rows) != summary["evaluations"]:
            raise ConfigError(f"it has {len(rows)} rows where summary.json counts {summary['evaluations']} evaluations")

    front = []
    with _damage(folder, "summary.json"):
        space = read_space(summary, [network.genes for network in rows.values()])
    with _damage(folder, "evaluations.csv"):
        for network in rows.values():
            if (name := stray(space, network.genes)) is not None:
                raise ConfigError(f"network {network.index} has {name}={network.genes[name]!r:.60}, which is not an option")
    header, table = _read_table(folder, "pareto.csv", ["index", *genes, *names])
    tests = tuple(n for n in header if n.startswith("test_") and n not in (*genes, *names) and n.removesuffix("_se") == n)
    for line, row in table:
        with _damage(folder, f"pareto.csv, line {line}"):
            network = _network(row, genes, [*names, *tests])
            if network.index not in rows or rows[network.index].failed:
                raise ConfigError(f"network {network.index} is not among those measured in evaluations.csv")
            if lacking := [name for name in names if name not in network.metrics]:
                raise ConfigError(f"{lacking[0]} is empty")
            known = rows[network.index]
            front.append(replace(known, metrics=known.metrics | network.metrics, errors=known.errors | network.errors))
    front.sort(key=lambda network: (objectives[0].sign * network.metrics[names[0]], network.index))
    config = _read_text(folder, "config.yaml")
    return Run(folder, summary, objectives, tuple(rows.values()), tuple(front), tests, hypervolume, config, space)


def _read_summary(folder: Path) -> tuple[dict[str, Any], tuple[Objective, ...], tuple[float, ...]]:
    text = _read_text(folder, "summary.json")
    with _damage(folder, "summary.json"):
        summary = json.loads(text)
        if not isinstance(summary, dict):
            raise TypeError("it is not an object")
        for name, kind in SUMMARY_TYPES.items():
            if name not in summary:
                raise ConfigError(f"it lacks {name!r}")
            if not isinstance(summary[name], kind) or isinstance(summary[name], bool):
                raise TypeError(f"{name!r} is {summary[name]!r:.60}")
        if not re.fullmatch("[0-9]+", summary["space_size"]):
            raise ConfigError(f"'space_size' is {summary['space_size']!r:.60}")
        if not all(isinstance(name, str) for name in summary["genes"] + summary["metrics"]):
            raise ConfigError("'genes' and 'metrics' are not all names")
        objectives = tuple(
            Objective(o["name"], o["direction"], str(o["unit"] or ""), float(o["reference"])) for o in summary["objectives"]
        )
        if not objectives or any(o.direction not in ("max", "min") for o in objectives):
            raise ConfigError("'objectives' needs at least one, each with the direction max or min")
        if unknown := [o.name for o in objectives if o.name not in summary["metrics"]]:
            raise ConfigError(f"the objective {unknown[0]!r} is not among 'metrics'")
        hypervolume = tuple(float(value) for value in summary["hypervolume"])
        if len(hypervolume) != summary["evaluations"] or not all(map(math.isfinite, hypervolume)):
            raise ConfigError(f"'hypervolume' is not {summary['evaluations']} finite numbers")
        summary["seconds"] = {part: float(spent) for part, spent in summary["seconds"].items()}
        if not all(map(math.isfinite, [*summary["seconds"].values(), *(o.reference for o in objectives)])):
            raise ConfigError("'seconds' or a reference is not finite")
    return summary, objectives, hypervolume


@contextmanager
def _damage(folder: Path, place: str) -> Iterator[None]:
    """Turns what goes wrong inside into one ConfigError that names the file."""
    try:
        yield
    except FileNotFoundError:
        raise ConfigError(f"{folder} has no {place}: the search has not finished; {RESUME} to resume it") from None
    except (ValueError, KeyError, TypeError, AttributeError, OSError, csv.Error) as error:
        why = f"it lacks {error}" if isinstance(error, KeyError) else " ".join(str(error).split())
        raise ConfigError(f"{folder / place} is damaged ({why}): {RESUME} to write it anew") from error


def _read_text(folder: Path, name: str) -> str:
    with _damage(folder, name), open(folder / name, encoding="utf-8", newline="") as file:
        return file.read()


def _read_table(folder: Path, name: str, needed: list[str]) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    text = _read_text(folder, name)
    with _damage(folder, name):
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        header = next(reader, [])
        if lacking := [column for column in needed if column not in header]:
            raise ConfigError(f"it has no column {lacking[0]!r}")
        if len(set(header)) != len(header):
            raise ConfigError("two columns have one name")
        table = []
        for row in reader:
            if len(row) != len(header):
                raise ConfigError(f"line {reader.line_num} has {len(row)} values for {len(header)} columns")
            table.append((reader.line_num, dict(zip(header, row, strict=True))))
    return header, table


def _network(row: dict[str, str], genes: list[str], metrics: list[str]) -> Network:
    """The part of a row that both tables have."""

    def numbers(columns: dict[str, str]) -> dict[str, float]:
        found = {}
        for name, column in columns.items():
            if row.get(column):
                try:
                    value = float(row[column])
                except ValueError:
                    raise ConfigError(f"{column} is {row[column]!r}, not a number") from None
                if math.isfinite(value):
                    found[name] = value
        return found

    values = numbers({name: name for name in metrics})
    errors = numbers({name: f"{name}_se" for name in values})
    switched_on = {name: row[name] for name in genes if row[name] != ""}
    return Network(int(row["index"]), None, False, "", switched_on, values, errors)


def number(value: float, error: float | None = None) -> str:
    """A value in four digits, or as many as its standard error bears, thousands as k, M, G…: "77.12 ± 0.19", "287.3M"."""
    largest = float(f"{max(abs(value), abs(error or 0.0)):.3e}")
    if largest >= 1e18 or 0 < largest < 1e-4:
        return f"{value:.3e}" + ("" if error is None else f" ± {error:.1e}")
    power = 0 if largest < 1e4 else min(5, int(math.log10(largest) // 3))
    scale, suffix = 1000.0**power, ("", "k", "M", "G", "T", "P")[power]
    value, error = value / scale, None if error is None else error / scale
    if not error:
        words = f"{value:.0f}" if value == round(value) else f"{value:.{_decimals(value, 4)}f}"
        return f"{words}{suffix}" + ("" if error is None else " ± 0")
    decimals = _decimals(error, 2)
    return f"{value:.{decimals}f}{suffix} ± {error:.{decimals}f}{suffix}"


def _decimals(value: float, digits: int) -> int:
    """How many decimals show so many significant digits of a value."""
    return min(6, max(0, digits - 1 - math.floor(math.log10(abs(value))))) if value else 0


def architecture(network: Network, genes: list[str]) -> str:
    """All genes in one line, those that differ only in their numbers together: "depth=3,2 kernel=3,5,–,7"; – is off."""
    groups: dict[str, list[str]] = {}
    for name in genes:
        stem = re.sub(r"[._-]?\d+", "", name)
        groups.setdefault(stem or name, []).append(name)
    return " ".join(
        f"{names[0] if len(names) == 1 else stem}={','.join(network.genes.get(name, '–') for name in names)}"
        for stem, names in groups.items()
    )
