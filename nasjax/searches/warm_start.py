"""Warm starts: what an earlier search measured, ours or DyNAS-T's, in the columns of a new one, best first."""

import csv
import json
import re
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from nasjax.errors import ConfigError
from nasjax.objectives import Goals
from nasjax.pareto import violations
from nasjax.searches.dynast import ARCHITECTURE, import_results
from nasjax.searches.problem import SearchProblem
from nasjax.space import Gene, Option, SearchSpace
from nasjax.supernets import SuperNet
from nasjax.tactics import Warm
from nasjax.tactics.predicting import ranked

Row = tuple[np.ndarray, Mapping[str, float]]
"""An architecture, and what was measured of it."""


def read_warm_start(place: Path, problem: SearchProblem, goals: Goals, net: Any = None) -> Warm:
    """The architectures of `place`: a run folder, its evaluations.csv or another table, a shared archive, a CSV of DyNAS-T.

    Best first by the goals that were measured there or are exact; where none was measured, the front of the run folder, then
    the others as they stand. `net` names the genes of DyNAS-T's architectures. Raises ConfigError, in one line, for what
    cannot be read or does not belong to the space.
    """
    front: list[bytes] = []
    if not place.exists():
        raise ConfigError(f"warm_start={place}: there is no such file or folder")
    if place.is_dir():
        table = place / "evaluations.csv"
        if not table.is_file():
            raise ConfigError(f"warm_start={place} is not a finished run: it has no evaluations.csv")
        rows = _table(table, problem.space, net)
        front = [bytes(arch) for arch, _ in _table(place / "pareto.csv", problem.space, net)]
    elif place.open("rb").read(15) == b"SQLite format 3":
        rows = _archive(place, problem.space)
    else:
        rows = _table(place, problem.space, net)
    rows = list({bytes(arch): (arch, metrics) for arch, metrics in rows}.values())
    if not rows:
        raise ConfigError(f"warm_start={place} has no architecture of this search space")
    archs = np.array([arch for arch, _ in rows], np.int32)
    values = _values(problem, goals, archs, [metrics for _, metrics in rows])
    known = np.isfinite(values).any(0)
    measured = [column.name not in problem.costs for column in goals.columns]
    if (known & measured).any():
        number = len(goals.objectives)
        limits = tuple(limit for limit, has in zip(goals.limits, known, strict=True) if has)
        kept = known[:number]
        failed = ~np.isfinite(values[:, known]).all(1)
        objectives = np.where(failed[:, None], np.nan, values[:, :number][:, kept])
        broken = np.where(failed, np.nan, violations(values[:, known], limits))
        order = _order(archs, ranked(archs, objectives.astype(np.float32), broken.astype(np.float32)))
    else:
        places = {name: i for i, name in enumerate(front)}
        order = np.argsort([places.get(bytes(arch), len(places)) for arch in archs], kind="stable")
    return Warm(archs[order], values[order])


def _order(archs: Int[np.ndarray, "rows genes"], best: Int[np.ndarray, "best genes"]) -> np.ndarray:
    """Where the rows of `best`, and then the others, stand in `archs`."""
    at = {bytes(arch): i for i, arch in enumerate(archs)}
    first = [at[bytes(arch)] for arch in np.asarray(best, np.int32)]
    return np.array([*first, *sorted(set(range(len(archs))) - set(first))])


def _values(
    problem: SearchProblem, goals: Goals, archs: Int[np.ndarray, "rows genes"], metrics: Sequence[Mapping[str, float]]
) -> Float[np.ndarray, "rows columns"]:
    """The goals' columns, minimised; NaN where nothing is known."""
    exact = problem.compute(archs)
    columns = [exact.get(c.name, np.array([row.get(c.name, np.nan) for row in metrics], np.float64)) for c in goals.columns]
    return np.stack([c.sign * column.astype(np.float64) for c, column in zip(goals.columns, columns, strict=True)], 1)


def _table(file: Path, space: SearchSpace, net: Any) -> list[Row]:
    """The rows of a CSV that belong to the space; failed ones left out."""
    try:
        with file.open(newline="", encoding="utf-8-sig") as opened:
            reader = csv.reader(opened)
            lines = [(reader.line_num, row) for row in reader if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"warm_start={file} cannot be read as CSV ({error})") from error
    if not lines:
        raise ConfigError(f"warm_start={file} is empty")
    (_, names), *rest = lines
    for line, words in rest:
        if len(words) != len(names):
            raise ConfigError(f"warm_start={file}, line {line} has {len(words)} cells where the header has {len(names)}")
    cells = [words for _, words in rest]
    if ARCHITECTURE in names:
        table = import_results([file], net if isinstance(net, SuperNet) else None)
        names, cells = list(table.header), [list(map(str, row)) for row in table.rows]
    if missing := [name for name in space.names if name not in names]:
        raise ConfigError(f"warm_start={file} has no column {missing[0]!r}: it is of another search space")
    rows: list[Row] = []
    for cell in cells:
        row = dict(zip(names, cell, strict=True))
        if row.get("status") == "failed":
            continue
        try:
            choices = {gene.name: _option(gene, row[gene.name]) for gene in space.genes if row[gene.name] != ""}
            arch = np.asarray(space.encode(choices))
        except ValueError:
            continue
        rows.append((arch, {name: number for name, text in row.items() if (number := _number(text)) is not None}))
    return rows


def _option(gene: Gene, text: str) -> Option:
    """The option that a cell means. Raises ConfigError for none."""
    for option in gene.options:
        if str(option) == text or (not isinstance(option, str) and _number(text) == option):
            return option
    raise ConfigError(f"{text!r} is no option of {gene.name}")


def _number(text: str) -> float | None:
    try:
        return float(text)
    except (TypeError, ValueError):
        return None


def _archive(file: Path, space: SearchSpace) -> list[Row]:
    """The measurements of an archive whose vectors have the space's genes, those on test data left out."""
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as base:
        try:
            found = base.execute(
                "select arch, metrics, description from measurements join contexts on context = digest "
                "order by measurements.rowid"
            ).fetchall()
        except sqlite3.Error as error:
            raise ConfigError(f"warm_start={file} cannot be read as an archive ({error})") from error
    rows: list[Row] = []
    contexts = set()
    for words, metrics, description in found:
        arch, context = np.array(json.loads(words), np.int32), json.loads(description)
        if context.get("split") == "test" or not _same_genes(context, space):
            continue
        if arch.shape == (len(space.genes),) and (arch < space.counts).all():
            rows.append((np.asarray(space.canonical(arch)), json.loads(metrics)))
            contexts.add(description)
    if len(contexts) > 1:
        raise ConfigError(
            f"warm_start={file} holds measurements of {len(contexts)} super-networks, tasks or settings with these genes: "
            f"name the folder of one run"
        )
    return rows


def _same_genes(context: Mapping[str, Any], space: SearchSpace) -> bool:
    """Whether the genes that a context of an archive names, where it does, are the space's."""
    if "genes" in context:  # A table's or a function's; their order is the space's, but for genes that others explain.
        return sorted(context["genes"]) == sorted(space.names)
    named = re.findall(r"Gene\(name='([^']*)'", str(context.get("network", "")))
    return not named or tuple(named[: len(space.names)]) == space.names
