"""A CSV of measured networks as the super-network: tactics are compared on it without a network."""

import csv
import fnmatch
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from nasjax.errors import ConfigError
from nasjax.space import Gene, Option, SearchSpace
from nasjax.types import Population

BOOKKEEPING = ("index", "step", "status", "source", "count", "seconds")
"""Columns of a run's own evaluations.csv that are neither genes nor metrics; `<metric>_se` is passed over too."""

CHUNK = 1024
"""Architectures looked up at once; a chunk is what a killed search may lose."""

BLOCK = 50_000
"""Rows held as text while a table is read: ten million cells as text would take gigabytes."""


@dataclass(frozen=True)
class TabularConfig:
    """A table: `table` is a CSV file, `genes` the columns that make an architecture; all others are numeric metrics.

    `kernel_*` names all columns of that form. Gene columns may be numbers or words. An empty cell says the gene does not
    exist there; another gene must explain it (a depth below some value). A run's `evaluations.csv` is such a table.
    """

    table: str | None = None
    genes: tuple[str, ...] = ()

    def create(self, seed: int = 0) -> "TabularNet":
        """Raises ConfigError, in one line, for a table that is missing, incomplete or contradicts itself."""
        if self.table is None or not self.genes:
            raise ConfigError("supernet=tabular needs supernet.table=FILE.csv and supernet.genes=[column,column,…]")
        return TabularNet(Path(self.table), self.genes)


class TabularNet:
    """Looks metrics up. Its space is every combination of the options seen; outside the rows the nearest one is meant."""

    origin: Mapping[str, Any] = MappingProxyType({"name": "in memory"})
    costs: Mapping[str, Any] = MappingProxyType({})

    def __init__(self, path: Path, genes: tuple[str, ...]):
        cells, self.metrics, values, lines = _read(path, genes)
        self.space, archs = _space(path, {gene: _options(words, codes) for gene, (words, codes) in cells.items()})
        self.chunk = CHUNK
        self.archs, self.values = _agreed(path, self.space, self.metrics, archs, values, lines)
        self._names = _names(self.archs)
        # By gene, so that a comparison with one architecture reads each column once.
        self._columns = np.ascontiguousarray(self.archs.T)
        with path.open("rb") as file:
            table = hashlib.file_digest(file, "sha256").hexdigest()
        self.context: Mapping[str, Any] = {"table": table, "genes": list(cells)}
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
        rows, known = self._find(archs)
        for i in np.flatnonzero(~known):
            distance = np.zeros(len(self.archs), np.int16)
            for column, option in zip(self._columns, archs[i], strict=True):
                distance += column != option
            rows[i] = distance.argmin()
        return self.archs[rows]

    def __call__(self, archs: Population) -> dict[str, Float[np.ndarray, " pop"]]:
        """Every metric of architectures that are rows of the table. Raises KeyError for others."""
        rows, known = self._find(np.asarray(archs, np.int32))
        if not known.all():
            raise KeyError(f"{self.space.decode(np.asarray(archs)[~known][0])} is not in the table")
        return {name: self.values[rows, i] for i, name in enumerate(self.metrics)}

    def _find(self, archs: Int[np.ndarray, "pop genes"]) -> tuple[Int[np.ndarray, " pop"], Bool[np.ndarray, " pop"]]:
        """The row of each architecture, and whether it is one."""
        names = _names(archs)
        rows = np.minimum(np.searchsorted(self._names, names), len(self._names) - 1)
        return rows, self._names[rows] == names


def _columns(path: Path, header: list[str], patterns: tuple[str, ...]) -> tuple[str, ...]:
    """The gene columns that names and patterns mean, each once."""
    columns = []
    for pattern in patterns if header else ():
        meant = [pattern] if pattern in header else fnmatch.filter(header, pattern)
        if not meant:
            raise ConfigError(f"{path} has no column {pattern!r}; it has {', '.join(header)}")
        columns += meant
    return tuple(dict.fromkeys(columns))


def _names(archs: Int[np.ndarray, "pop genes"]) -> np.ndarray:
    """One word of bytes an architecture; words sort as architectures do."""
    digits = np.ascontiguousarray(archs.astype(">u4"))
    return digits.view(f"V{digits.itemsize * digits.shape[1]}").ravel()


Cells = tuple[list[str], Int[np.ndarray, " rows"]]
"""A column's distinct words, and which of them stands in each row."""


def _read(
    path: Path, genes: tuple[str, ...]
) -> tuple[dict[str, Cells], tuple[str, ...], Float[np.ndarray, "rows metrics"], Int[np.ndarray, " rows"]]:
    """Gene columns, names and values of metrics, and the line that each row ends on; failed rows of a run are left out."""
    if not path.is_file():
        raise ConfigError(f"supernet.table={path} is not a file")
    parts: list[tuple[list[np.ndarray], np.ndarray, np.ndarray]] = []
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            header = next((row for row in reader if row), [])
            genes = _columns(path, header, genes)
            words: dict[str, dict[str, int]] = {gene: {} for gene in genes}
            metrics = _metrics(path, header, genes)
            for lines, columns in _blocks(path, reader, header):
                coded = [_coded(words[gene], columns[header.index(gene)]) for gene in genes]
                numbers = [_numbers(path, lines, name, columns[header.index(name)]) for name in metrics]
                parts.append((coded, np.stack(numbers, axis=1), lines))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{path} cannot be read as CSV ({error})") from error
    if not parts:
        raise ConfigError(f"{path} has no rows below its header")
    cells = {gene: (list(words[gene]), np.concatenate([part[0][i] for part in parts])) for i, gene in enumerate(genes)}
    return cells, metrics, np.concatenate([part[1] for part in parts]), np.concatenate([part[2] for part in parts])


def _metrics(path: Path, header: list[str], genes: tuple[str, ...]) -> tuple[str, ...]:
    """The columns that are neither genes nor bookkeeping."""
    if len(set(header)) != len(header):
        raise ConfigError(f"{path} names column {max(header, key=header.count)!r} twice")
    metrics = tuple(name for name in header if name not in genes and not _passed_over(header, name))
    if header and not metrics:
        raise ConfigError(f"{path} has no metric: every column is a gene")
    return metrics


def _blocks(path: Path, reader: Any, header: list[str]) -> Iterator[tuple[Int[np.ndarray, " rows"], list[Sequence[str]]]]:
    """Lines and columns of at most BLOCK rows at a time."""
    status = header.index("status") if "status" in header else None
    rows = ((reader.line_num, row) for row in reader if row)
    while block := list(islice(rows, BLOCK)):
        for line, row in block:
            if len(row) != len(header):
                raise ConfigError(f"{path}, line {line} has {len(row)} cells where the header has {len(header)}")
        if status is not None:
            block = [(line, row) for line, row in block if row[status] != "failed"]
        if block:
            yield np.array([line for line, _ in block], np.int32), list(zip(*(row for _, row in block), strict=True))


def _coded(words: dict[str, int], cells: Sequence[str]) -> Int[np.ndarray, " rows"]:
    """Which word stands in each cell; words not met before are added."""
    for cell in set(cells) - words.keys():
        words[cell] = len(words)
    return np.fromiter(map(words.__getitem__, cells), np.int32, len(cells))


def _numbers(path: Path, lines: Int[np.ndarray, " rows"], metric: str, cells: Sequence[str]) -> Float[np.ndarray, " rows"]:
    try:
        return np.fromiter(map(float, cells), np.float64, len(cells))
    except ValueError:
        for line, cell in zip(lines, cells, strict=True):
            if not _is_number(cell):
                raise ConfigError(f"{path}, line {line}: column {metric!r} holds {cell!r}, which is not a number; name it "
                                 f"among supernet.genes or remove it") from None  # fmt: skip
        raise


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _passed_over(header: list[str], name: str) -> bool:
    """Bookkeeping of a run's own table, known by its `status` and `source` columns."""
    own = {"status", "source"} <= set(header)
    return own and (name in BOOKKEEPING or (name.endswith("_se") and name.removesuffix("_se") in header))


def _options(words: list[str], codes: Int[np.ndarray, " rows"]) -> tuple[tuple[Option, ...], Int[np.ndarray, " rows"]]:
    """A gene's options, ascending (whole numbers, else numbers, else words), and which each row has; -1 where empty."""
    filled = [word for word in words if word.strip()]
    # `01` and `1` are two words, not one number.
    kinds = (str,) if any(re.fullmatch(r"-?0\d+", word.strip()) for word in filled) else (int, float, str)
    for kind in kinds:
        try:
            read = {word: kind(word) for word in filled}
            break
        except ValueError:
            continue
    options = tuple(sorted(set(read.values())))
    places = {option: i for i, option in enumerate(options)}
    table = np.array([places[read[word]] if word in read else -1 for word in words], np.int32)
    return options, table[codes]


def _space(
    path: Path, columns: dict[str, tuple[tuple[Option, ...], Int[np.ndarray, " rows"]]]
) -> tuple[SearchSpace, Int[np.ndarray, "rows genes"]]:
    """The space and every row's architecture. Genes without empty cells come first: they explain the gaps of the others."""
    full = {gene: column for gene, column in columns.items() if (column[1] >= 0).all()}
    genes = [Gene(gene, options) for gene, (options, _) in full.items()]
    for gene, (options, indices) in columns.items():
        if gene not in full:
            genes.append(Gene(gene, options, _explanation(path, gene, indices < 0, full)))
    archs = np.stack([np.maximum(columns[gene.name][1], 0) for gene in genes], axis=1)
    return SearchSpace(tuple(genes)), archs


def _explanation(path: Path, gene: str, empty: Bool[np.ndarray, " rows"], full: dict[str, Any]) -> tuple[str, float]:
    for other, (options, indices) in full.items():
        if isinstance(options[0], str) or empty.all():
            continue
        needed = indices[~empty].min()
        if indices[empty].max() < needed:
            return other, options[needed]
    raise ConfigError(f"{path}: gene column {gene!r} has empty cells that no other gene column explains")


def _agreed(
    path: Path, space: SearchSpace, metrics: tuple[str, ...], archs: np.ndarray, table: np.ndarray, lines: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The distinct rows, in order of architecture. Raises ConfigError where two rows of one architecture disagree."""
    _, first, which = np.unique(_names(archs), return_index=True, return_inverse=True)
    again = np.flatnonzero(first[which] != np.arange(len(archs)))
    earlier = first[which[again]]
    differs = (table[again] != table[earlier]) & ~(np.isnan(table[again]) & np.isnan(table[earlier]))
    if differs.any():
        row, column = map(int, np.argwhere(differs)[0])
        raise ConfigError(
            f"{path}: lines {lines[earlier[row]]} and {lines[again[row]]} are the same network "
            f"{space.decode(archs[again[row]])} but disagree about {metrics[column]!r}; keep one, or average them"
        )
    return archs[first], table[first]
