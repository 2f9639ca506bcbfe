"""Warm starts: the architectures that an earlier search measured, best first by the goals of a new search."""

import logging
import math
import re
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from nasjax.csv_reader import CsvFile, read_csv
from nasjax.errors import ConfigError, naming_damage
from nasjax.host import is_database, parse_json, regular_file
from nasjax.objectives import BOOKKEEPING, LIMIT, Goals
from nasjax.pareto import violations
from nasjax.runs.archive import DAMAGED, check_archive, read_integers, read_metrics
from nasjax.runs.folder import SEEDS_CSV
from nasjax.searches.dynast import ARCHITECTURE, import_results
from nasjax.searches.problem import SearchProblem, SelfMeasuring
from nasjax.space import SearchSpace
from nasjax.supernets import SuperNet
from nasjax.tactics import Warm
from nasjax.tactics.predicting import sort_by_rank

LOG = logging.getLogger(__name__)

Row = tuple[np.ndarray, Mapping[str, float]]
"""An architecture, and its metrics by name."""

MOST_TARGETS = 8
"""Metrics of earlier searches that predictors read, at most: each is predicted for every candidate."""

ALIKE = 1e-6
"""The greatest relative difference of a metric that two searches measured alike."""


@dataclass(frozen=True)
class _Earlier:
    """One earlier search: its rows by architecture as bytes, its front, and the genes, by position, that it lacks."""

    rows: dict[bytes, Row]
    front: Sequence[bytes] = ()
    lacking: tuple[int, ...] = ()


def read_warm_start(place: Path, problem: SearchProblem, goals: Goals, net: SuperNet | SelfMeasuring | None = None) -> Warm:
    """Reads a run folder, its evaluations.csv or another table, an archive, DyNAS-T's CSV, or a folder of several runs.

    The architectures of each search are ranked by the goals that were measured there or are exact costs; the best of each
    come first. Where no goal was measured, the front of a run folder comes first, the others follow in their order.
    Predictors are to read the goals measured in each search, or where there are none, its other metrics. `net` gives
    the genes of DyNAS-T's architectures their names. Raises ConfigError for a file that cannot be read or belongs to another
    search space.
    """
    searches = _joined(_read(place, problem.space, net))
    if not searches:
        raise ConfigError(f"warm_start={place} has no architecture of this search space")
    return _interleaved([_ranked(search, problem, goals) for search in searches])


def _read(place: Path, space: SearchSpace, net: SuperNet | SelfMeasuring | None) -> list[_Earlier]:
    """The searches at a place: one, or those of the run folders in a folder."""
    if not place.exists():
        raise ConfigError(f"warm_start={place}: there is no such file or folder")
    if place.is_dir() and (place / "evaluations.csv").is_file():
        found = _read_table(place / "evaluations.csv", space, net)
        return [replace(found, front=tuple(_read_table(place / "pareto.csv", space, net).rows))]
    if place.is_dir():
        inside = sorted(file.parent for file in place.glob("*/evaluations.csv"))
        if (place / SEEDS_CSV).is_file():
            raise ConfigError(f"warm_start={place} has searches with many seeds (seeds=): name one run, or their table")
        if not inside:
            raise ConfigError(f"warm_start={place} is not a finished run, and has none in it: it has no evaluations.csv")
        return [search for path in inside for search in _read(path, space, net)]
    if is_database(regular_file(f"warm_start={place}", place)):
        return [_Earlier({bytes(arch): (arch, metrics) for arch, metrics in _read_archive(place, space)})]
    return [_read_table(place, space, net)]


def _joined(searches: Sequence[_Earlier]) -> list[_Earlier]:
    """The searches with those joined that measured some networks alike and none differently, such as seeds of one search."""
    joined: list[_Earlier] = []
    for search in searches:
        alike = [i for i, known in enumerate(joined) if known.lacking == search.lacking and _agree(known.rows, search.rows)]
        if alike:
            known = joined[alike[0]]
            joined[alike[0]] = _Earlier({**search.rows, **known.rows}, (*known.front, *search.front), known.lacking)
        elif search.rows:
            joined.append(search)
    return joined


def _agree(one: Mapping[bytes, Row], other: Mapping[bytes, Row]) -> bool:
    """Whether two searches have measured some of the same architectures, and the same metrics of all of these alike."""
    both = [(one[arch][1], other[arch][1]) for arch in one.keys() & other.keys()]
    return bool(both) and all(
        a.keys() == b.keys() and all(math.isclose(a[name], b[name], rel_tol=ALIKE) for name in a if _is_measured(name))
        for a, b in both
    )


def _is_measured(name: str) -> bool:
    """Whether a column of numbers is more than what stands beside metrics."""
    return name not in BOOKKEEPING and not name.endswith("_se") and not name.startswith("test_")


def _ranked(search: _Earlier, problem: SearchProblem, goals: Goals) -> Warm:
    """The networks of one search, best first, and what predictors read of them."""
    archs = np.array([arch for arch, _ in search.rows.values()], np.int32)
    metrics = [found for _, found in search.rows.values()]
    values = _minimised(problem, goals, archs, metrics)
    known, exact = np.isfinite(values).any(0), (*problem.costs, *problem.space.names)
    measured = known & [column.name not in exact for column in goals.columns]
    if measured.any():
        order, targets = _ranking(goals, archs, values, known), values[:, measured]
    else:
        order = _front_first(archs, search.front)
        others = [name for name in dict.fromkeys(name for row in metrics for name in row) if _is_measured(name)]
        columns = [[row.get(name, np.nan) for row in metrics] for name in others if name not in exact]
        targets = np.array(columns, np.float64).reshape(-1, len(archs)).T
    return Warm(archs[order], values[order], targets[order], (search.lacking,) * targets.shape[1])


def _interleaved(searches: Sequence[Warm]) -> Warm:
    """Several searches as one: the best of each first, each network once with the first search's values, and all targets."""
    rank: dict[bytes, int] = {}
    for search in searches:
        for i, arch in enumerate(map(bytes, search.archs)):
            rank[arch] = min(rank.get(arch, i), i)
    place = {arch: i for i, arch in enumerate(sorted(rank, key=rank.__getitem__))}
    rows = [[place[arch] for arch in map(bytes, search.archs)] for search in searches]
    archs = np.zeros((len(place), searches[0].archs.shape[1]), np.int32)
    values = np.full((len(place), searches[0].values.shape[1]), np.nan)
    for search, places in reversed(list(zip(searches, rows, strict=True))):
        archs[places], values[places] = search.archs, search.values
    targets = []
    for search, places in zip(searches, rows, strict=True):
        columns = np.full((len(place), len(search.lacking)), np.nan)
        columns[places] = search.targets
        targets.append(columns)
    lacking = tuple(genes for search in searches for genes in search.lacking)
    return Warm(archs, values, np.concatenate(targets, 1)[:, :MOST_TARGETS], lacking[:MOST_TARGETS])


def _ranking(
    goals: Goals,
    archs: Int[np.ndarray, "rows genes"],
    values: Float[np.ndarray, "rows columns"],
    known: Bool[np.ndarray, " columns"],
) -> Int[np.ndarray, " rows"]:
    """Rows, best first by the `known` columns; those that the tactics' ranking leaves out come last."""
    number = len(goals.objectives)
    limits = tuple(limit for limit, is_known in zip(goals.limits, known, strict=True) if is_known)
    failed = ~np.isfinite(values[:, known]).all(1)
    objectives = np.where(failed[:, None], np.nan, values[:, :number][:, known[:number]])
    broken = np.where(failed, np.nan, violations(values[:, known], limits))
    best = np.asarray(sort_by_rank(archs, objectives.astype(np.float32), broken.astype(np.float32)), np.int32)
    row_of = {bytes(arch): i for i, arch in enumerate(archs)}
    first = [row_of[bytes(arch)] for arch in best]
    return np.array([*first, *sorted(set(range(len(archs))) - set(first))])


def _front_first(archs: Int[np.ndarray, "rows genes"], front: Sequence[bytes]) -> Int[np.ndarray, " rows"]:
    """Rows: those of the front in its order, then the others in theirs."""
    places = {arch: i for i, arch in enumerate(front)}
    return np.argsort([places.get(bytes(arch), len(places)) for arch in archs], kind="stable")


def _minimised(
    problem: SearchProblem, goals: Goals, archs: Int[np.ndarray, "rows genes"], metrics: Sequence[Mapping[str, float]]
) -> Float[np.ndarray, "rows columns"]:
    """The goals' columns, minimised: exact costs where there are some, else the metrics; NaN where these are missing."""
    exact = problem.compute(archs) | {name: gene.exact(archs) for name, gene in problem.bounded_genes(goals).items()}
    columns = [exact.get(c.name, np.array([row.get(c.name, np.nan) for row in metrics], np.float64)) for c in goals.columns]
    values = np.stack([c.sign * column.astype(np.float64) for c, column in zip(goals.columns, columns, strict=True)], 1)
    return np.where(np.abs(values) <= LIMIT, values, np.nan)


def _read_table(file: Path, space: SearchSpace, net: SuperNet | SelfMeasuring | None) -> _Earlier:
    """The rows of a CSV that belong to the space, without failed ones.

    Genes that it lacks, half of all at most, have their last options. Raises ConfigError where it lacks more.
    """
    table = read_csv(f"warm_start={file}", file)
    if ARCHITECTURE in table.columns:
        imported = import_results([file], net if isinstance(net, SuperNet) else None)
        cells = [dict(zip(imported.header, map(str, row), strict=True)) for row in imported.rows]
        names = set(imported.header)
    else:
        cells = [{name: row[i] for name, i in table.columns.items()} for _, row in table.rows()]
        names = set(table.columns)
    missing = [gene for gene in space.genes if gene.name not in names]
    if 2 * len(missing) > len(space.genes):
        raise ConfigError(f"warm_start={file} has no column {missing[0].name!r}: it is of another search space")
    if missing:
        LOG.warning(f"warm_start={file} has no {', '.join(gene.name for gene in missing)}: their last options are taken")
    last = {gene.name: str(gene.options[-1]) for gene in missing}
    rows: dict[bytes, Row] = {}
    for cell in cells:
        if cell.get("status") == "failed":
            continue
        cell = cell | last
        try:
            choices = {gene.name: table.option(gene, cell[gene.name]) for gene in space.genes if cell[gene.name].strip()}
            arch = np.asarray(space.encode(choices))
        except ConfigError:  # Another option, or another part of the network than this space has.
            continue
        metrics = {name: number for name, text in cell.items() if np.isfinite(number := _number(table, text))}
        rows[bytes(arch)] = arch, {name: number for name, number in metrics.items() if name not in space.names}
    return _Earlier(rows, (), tuple(space.names.index(gene.name) for gene in missing))


def _number(table: CsvFile, cell: str) -> float:
    """The number in a cell, NaN where there is none."""
    try:
        return table.number(cell)
    except ValueError:
        return np.nan


def _read_archive(file: Path, space: SearchSpace) -> list[Row]:
    """The measurements of an archive that were made of networks with the space's genes, without those on test data."""
    check_archive(file)
    with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)) as base:
        try:
            measurements = base.execute(
                "select arch, metrics, description from measurements join contexts on context = digest "
                "order by measurements.rowid"
            ).fetchall()
        except sqlite3.Error as error:
            raise ConfigError(f"warm_start={file} cannot be read as an archive ({error})") from error
    rows: list[Row] = []
    contexts = set()
    for genes, metrics, description in measurements:
        with naming_damage(file, DAMAGED):
            context, values = parse_json(description), read_metrics(metrics)
            arch = np.array(read_integers(parse_json(genes)), np.int32)
            if context.get("split") == "test" or not _fits(context, space):
                continue
        if arch.shape == (len(space.genes),) and (arch < space.counts).all():
            rows.append((np.asarray(space.canonical(arch)), values))
            contexts.add(description)
    if len(contexts) > 1:
        raise ConfigError(
            f"warm_start={file} holds measurements of {len(contexts)} super-networks, tasks or settings with these genes: "
            f"name the folder of one run"
        )
    return rows


def _fits(context: Mapping[str, Any], space: SearchSpace) -> bool:
    """Whether an archive's context names the genes of the space, or none."""
    if "genes" in context:  # A table or a function; genes that others determine may stand elsewhere in its space.
        return sorted(context["genes"]) == sorted(space.names)
    named = re.findall(r"Gene\(name='([^']*)'", str(context.get("network", "")))
    return not named or tuple(named[: len(space.names)]) == space.names
