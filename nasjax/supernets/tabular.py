"""A CSV of measured networks as the super-network: tactics are compared on it without a network."""

import csv
import fnmatch
import re
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from nasjax.space import Gene, Option, SearchSpace
from nasjax.types import Population

BOOKKEEPING = ("index", "step", "status", "source", "count", "seconds")
"""Columns of a run's own evaluations.csv that are neither genes nor metrics; `<metric>_se` is passed over too."""


@dataclass(frozen=True)
class TabularConfig:
    """A table: `table` is a CSV file, `genes` the columns that make an architecture; all others are numeric metrics.

    `kernel_*` names all columns of that form. Gene columns may be numbers or words. An empty cell says the gene does not
    exist there; another gene must explain it (a depth below some value). A run's `evaluations.csv` is such a table.
    """

    table: str | None = None
    genes: tuple[str, ...] = ()

    def create(self, seed: int = 0) -> "TabularNet":
        """Raises ValueError, in one line, for a table that is missing, incomplete or contradicts itself."""
        if self.table is None or not self.genes:
            raise ValueError("supernet=tabular needs supernet.table=FILE.csv and supernet.genes=[column,column,…]")
        return TabularNet(Path(self.table), self.genes)


class TabularNet:
    """Looks metrics up. Its space is every combination of the options seen; outside the rows the nearest one is meant."""

    origin: Mapping[str, Any] = MappingProxyType({"name": "in memory"})
    costs: Mapping[str, Any] = MappingProxyType({})

    def __init__(self, path: Path, genes: tuple[str, ...]):
        header, rows = _read(path)
        genes = _columns(path, header, genes)
        values = {gene: _options(path, gene, [row[header.index(gene)] for row in rows]) for gene in genes}
        self.space = _space(path, values)
        self.chunk = 1024
        self.metrics = tuple(name for name in header if name not in genes and not _passed_over(header, name))
        if not self.metrics:
            raise ValueError(f"{path} has no metric: every column is a gene")
        chosen = [{gene: cells[i] for gene, cells in values.items()} for i in range(len(rows))]
        archs = [self.space.encode({g: cell for g, cell in row.items() if cell is not None}) for row in chosen]
        table = np.array([[_number(path, i, m, rows[i][header.index(m)]) for m in self.metrics] for i in range(len(rows))])
        self.archs, self.values = _agreed(path, self.space, self.metrics, np.array(archs, np.int32), table)
        self._rows = {arch.tobytes(): i for i, arch in enumerate(self.archs)}
        self.context: Mapping[str, Any] = {"table": sha256(path.read_bytes()).hexdigest(), "genes": list(genes)}
        self.name = path.stem

    def ranges(self) -> dict[str, tuple[float, float]]:
        """Least and greatest finite value of every metric in the table."""
        columns = {name: column[np.isfinite(column)] for name, column in zip(self.metrics, self.values.T, strict=True)}
        unknown = float("nan")
        return {
            name: (float(column.min()), float(column.max())) if len(column) else (unknown, unknown)
            for name, column in columns.items()
        }

    def rows(self) -> Int[np.ndarray, "pop genes"] | None:
        """The table's architectures where it has holes; None where it is complete."""
        return None if len(self.archs) == self.space.size else self.archs

    def nearest(self, archs: Population) -> Int[np.ndarray, "pop genes"]:
        """The rows of the table with the smallest Hamming distance (the first of several)."""
        archs = np.asarray(archs, np.int32)
        known = [self._rows.get(arch.tobytes(), -1) for arch in archs]
        rows = [i if i >= 0 else int((self.archs != arch).sum(1).argmin()) for i, arch in zip(known, archs, strict=True)]
        return self.archs[rows]

    def __call__(self, archs: Population) -> dict[str, Float[np.ndarray, " pop"]]:
        """Every metric of architectures that are rows of the table."""
        rows = [self._rows[arch.tobytes()] for arch in np.asarray(archs, np.int32)]
        return {name: self.values[rows, i] for i, name in enumerate(self.metrics)}


def _columns(path: Path, header: list[str], patterns: tuple[str, ...]) -> tuple[str, ...]:
    """The gene columns that names and patterns mean, each once."""
    columns = []
    for pattern in patterns:
        meant = [pattern] if pattern in header else fnmatch.filter(header, pattern)
        if not meant:
            raise ValueError(f"{path} has no column {pattern!r}; it has {', '.join(header)}")
        columns += meant
    return tuple(dict.fromkeys(columns))


def _read(path: Path) -> tuple[list[str], list[list[str]]]:
    if not path.is_file():
        raise ValueError(f"supernet.table={path} is not a file")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [row for row in csv.reader(file) if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} cannot be read as CSV ({error})") from error
    if len(rows) < 2:
        raise ValueError(f"{path} has no rows below its header")
    header = rows[0]
    if len(set(header)) != len(header):
        raise ValueError(f"{path} names column {max(header, key=header.count)!r} twice")
    for line, row in enumerate(rows[1:], 2):
        if len(row) != len(header):
            raise ValueError(f"{path}, line {line} has {len(row)} cells where the header has {len(header)}")
    if "status" in header:
        rows = rows[:1] + [row for row in rows[1:] if row[header.index("status")] != "failed"]
    return header, rows[1:]


def _passed_over(header: list[str], name: str) -> bool:
    """Bookkeeping of a run's own table, known by its `status` and `source` columns."""
    own = {"status", "source"} <= set(header)
    return own and (name in BOOKKEEPING or (name.endswith("_se") and name.removesuffix("_se") in header))


def _options(path: Path, gene: str, cells: list[str]) -> list[Option | None]:
    """A gene's cells as whole numbers, else as numbers, else as words; None where empty."""
    # `01` and `1` are two words, not one number.
    words = any(re.fullmatch(r"-?0\d+", cell.strip()) for cell in cells)
    for kind in (str,) if words else (int, float, str):
        try:
            return [kind(cell) if cell.strip() else None for cell in cells]
        except ValueError:
            continue
    raise ValueError(f"{path}: gene column {gene!r} cannot be read")


def _space(path: Path, values: dict[str, list[Any]]) -> SearchSpace:
    """One gene a column, those without empty cells first; the others need the first column that explains their gaps."""
    full = {gene: cells for gene, cells in values.items() if None not in cells}
    genes = [Gene(gene, tuple(sorted(set(cells)))) for gene, cells in full.items()]
    for gene, cells in values.items():
        if gene not in full:
            seen = tuple(sorted({cell for cell in cells if cell is not None}))
            genes.append(Gene(gene, seen, _explanation(path, gene, cells, full)))
    return SearchSpace(tuple(genes))


def _explanation(path: Path, gene: str, cells: list[Any], full: dict[str, list[Any]]) -> tuple[str, float]:
    empty = np.array([cell is None for cell in cells])
    for other, numbers in full.items():
        if isinstance(numbers[0], str):
            continue
        with_it, without = np.array(numbers)[~empty], np.array(numbers)[empty]
        if len(with_it) and without.max() < with_it.min():
            return other, with_it.min().item()
    raise ValueError(f"{path}: gene column {gene!r} has empty cells that no other gene column explains")


def _number(path: Path, row: int, metric: str, cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        raise ValueError(f"{path}, row {row + 1}: column {metric!r} holds {cell!r}, which is not a number; name it among "
                         f"supernet.genes or remove it") from None  # fmt: skip


def _agreed(
    path: Path, space: SearchSpace, metrics: tuple[str, ...], archs: np.ndarray, table: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The distinct rows, in order of architecture. Raises ValueError where two rows of one architecture disagree."""
    distinct, first, which = np.unique(archs, axis=0, return_index=True, return_inverse=True)
    differs = (table != table[first][which.ravel()]) & ~(np.isnan(table) & np.isnan(table[first][which.ravel()]))
    if differs.any():
        row, column = map(int, np.argwhere(differs)[0])
        raise ValueError(
            f"{path}: rows {int(first[which.ravel()[row]]) + 1} and {row + 1} are the same network "
            f"{space.decode(archs[row])} but disagree about {metrics[column]!r}; keep one, or average them"
        )
    return distinct, table[first]
