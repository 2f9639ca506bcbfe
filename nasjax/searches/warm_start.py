"""Warm starts: the architectures that an earlier search measured, best first by the goals of a new search."""

import re
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from nasjax.csv_reader import CsvFile, read_csv
from nasjax.errors import ConfigError, naming_damage
from nasjax.host import is_database, parse_json, regular_file
from nasjax.objectives import LIMIT, Goals
from nasjax.pareto import violations
from nasjax.runs.archive import DAMAGED, check_archive, read_integers, read_metrics
from nasjax.searches.dynast import ARCHITECTURE, import_results
from nasjax.searches.problem import SearchProblem, SelfMeasuring
from nasjax.space import SearchSpace
from nasjax.supernets import SuperNet
from nasjax.tactics import Warm
from nasjax.tactics.predicting import sort_by_rank

Row = tuple[np.ndarray, Mapping[str, float]]
"""An architecture, and its metrics by name."""


def read_warm_start(place: Path, problem: SearchProblem, goals: Goals, net: SuperNet | SelfMeasuring | None = None) -> Warm:
    """Reads the architectures of a run folder, of its evaluations.csv or another table, of an archive, or of DyNAS-T's CSV.

    They are ranked by the goals that were measured there or are exact costs. Where no goal was measured, the front of the
    run folder comes first, the others follow in their order. `net` gives the genes of DyNAS-T's architectures their names.
    Raises ConfigError for a file that cannot be read or belongs to another search space.
    """
    rows, front = _read(place, problem.space, net)
    rows = list({bytes(arch): (arch, metrics) for arch, metrics in rows}.values())
    if not rows:
        raise ConfigError(f"warm_start={place} has no architecture of this search space")
    archs = np.array([arch for arch, _ in rows], np.int32)
    values = _minimised(problem, goals, archs, [metrics for _, metrics in rows])
    known = np.isfinite(values).any(0)
    measured = [column.name not in (*problem.costs, *problem.space.names) for column in goals.columns]
    order = _ranking(goals, archs, values, known) if (known & measured).any() else _front_first(archs, front)
    return Warm(archs[order], values[order])


def _read(place: Path, space: SearchSpace, net: SuperNet | SelfMeasuring | None) -> tuple[list[Row], list[bytes]]:
    """The rows of any kind of warm start, and the architectures of its front, as bytes, where it is a run folder."""
    if not place.exists():
        raise ConfigError(f"warm_start={place}: there is no such file or folder")
    if place.is_dir():
        table, front = place / "evaluations.csv", place / "pareto.csv"
        if not table.is_file():
            raise ConfigError(f"warm_start={place} is not a finished run: it has no evaluations.csv")
        rows = _read_table(table, space, net)
        return rows, [bytes(arch) for arch, _ in _read_table(front, space, net)]
    if is_database(regular_file(f"warm_start={place}", place)):
        return _read_archive(place, space), []
    return _read_table(place, space, net), []


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


def _read_table(file: Path, space: SearchSpace, net: SuperNet | SelfMeasuring | None) -> list[Row]:
    """The rows of a CSV that belong to the space, without failed ones."""
    table = read_csv(f"warm_start={file}", file)
    if ARCHITECTURE in table.columns:
        imported = import_results([file], net if isinstance(net, SuperNet) else None)
        cells = [dict(zip(imported.header, map(str, row), strict=True)) for row in imported.rows]
        names = set(imported.header)
    else:
        cells = [{name: row[i] for name, i in table.columns.items()} for _, row in table.rows()]
        names = set(table.columns)
    if missing := [name for name in space.names if name not in names]:
        raise ConfigError(f"warm_start={file} has no column {missing[0]!r}: it is of another search space")
    rows: list[Row] = []
    for cell in cells:
        if cell.get("status") == "failed":
            continue
        try:
            choices = {gene.name: table.option(gene, cell[gene.name]) for gene in space.genes if cell[gene.name].strip()}
            arch = np.asarray(space.encode(choices))
        except ConfigError:  # Another option, or another part of the network than this space has.
            continue
        rows.append((arch, {name: number for name, text in cell.items() if np.isfinite(number := _number(table, text))}))
    return rows


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
