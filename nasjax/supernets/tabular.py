"""A CSV table of measured networks as the super-network: metrics are looked up, so searches run without any network."""

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
from nasjax.host import regular_file
from nasjax.registry import IN_MEMORY
from nasjax.space import Gene, Option, SearchSpace
from nasjax.types import Population

BOOKKEEPING = ("index", "step", "status", "source", "count", "seconds")
"""Columns of evaluations.csv and of imported results that are neither genes nor metrics; nor is any `<metric>_se`."""

LOOKUP_CHUNK = 1024
"""Architectures looked up at once, which is what a killed search may lose."""

ROWS_AS_TEXT = 50_000
"""Rows that are held as text while a table is read: ten million cells of text would take gigabytes."""


@dataclass(frozen=True)
class TabularConfig:
    """A table of measured networks, such as the `evaluations.csv` of a run.

    Attributes:
      table: a CSV file with one network a row, and a header.
      genes: the columns that describe the architecture, numbers or strings; `kernel_*` means all columns of that form. All
        other columns are metrics, which must be numbers. An empty cell means that the gene does not exist in that row, which
        another gene must explain (a depth below some value).
    """

    table: str | None = None
    genes: tuple[str, ...] = ()

    def create(self, seed: int = 0) -> "TabularNet":
        """Reads the table; `seed` is not used. Raises ConfigError if it is missing, incomplete or contradicts itself."""
        if self.table is None or not self.genes:
            raise ConfigError("supernet=tabular needs supernet.table=FILE.csv and supernet.genes=[column,column,…]")
        return TabularNet(Path(self.table), self.genes)


class TabularNet:
    """A super-network whose metrics are looked up. Its search space has every combination of the options in the table."""

    origin: Mapping[str, Any] = IN_MEMORY
    costs: Mapping[str, Any] = MappingProxyType({})

    def __init__(self, path: Path, genes: tuple[str, ...]):
        columns, self.metrics, values, lines = _read_table(path, genes)
        self.space, archs = _infer_space(path, {gene: _parse_options(column) for gene, column in columns.items()})
        self.chunk = LOOKUP_CHUNK
        self.archs, self.values = _without_duplicates(path, self.space, self.metrics, archs, values, lines)
        self._keys = _sortable_keys(self.archs)
        # Contiguous by gene: `nearest` compares all rows gene by gene.
        self._columns = np.ascontiguousarray(self.archs.T)
        with path.open("rb") as file:
            table = hashlib.file_digest(file, "sha256").hexdigest()
        self.context: Mapping[str, Any] = {"table": table, "genes": list(columns)}
        self.name = path.stem

    def ranges(self) -> dict[str, tuple[float, float]]:
        """The least and greatest finite value of every metric; NaN where a metric has none."""
        columns = {name: column[np.isfinite(column)] for name, column in zip(self.metrics, self.values.T, strict=True)}
        unknown = float("nan")
        return {
            name: (float(column.min()), float(column.max())) if len(column) else (unknown, unknown)
            for name, column in columns.items()
        }

    def rows(self) -> Int[np.ndarray, "pop genes"] | None:
        """The architectures of the table; None if it has every architecture of the space."""
        return None if len(self.archs) == self.space.size else self.archs

    def nearest(self, archs: Population) -> Int[np.ndarray, "pop genes"]:
        """Returns the architecture of the table at the smallest Hamming distance from each (the first of several)."""
        archs = np.asarray(archs, np.int32)
        rows, in_table = self._find(archs)
        for i in np.flatnonzero(~in_table):
            distance = np.zeros(len(self.archs), np.int16)
            for column, option in zip(self._columns, archs[i], strict=True):
                distance += column != option
            rows[i] = distance.argmin()
        return self.archs[rows]

    def __call__(self, archs: Population) -> dict[str, Float[np.ndarray, " pop"]]:
        """Looks up every metric by name. Raises KeyError for an architecture that is not in the table."""
        rows, in_table = self._find(np.asarray(archs, np.int32))
        if not in_table.all():
            raise KeyError(f"{self.space.decode(np.asarray(archs)[~in_table][0])} is not in the table")
        return {name: self.values[rows, i] for i, name in enumerate(self.metrics)}

    def _find(self, archs: Int[np.ndarray, "pop genes"]) -> tuple[Int[np.ndarray, " pop"], Bool[np.ndarray, " pop"]]:
        """Returns the row of each architecture, and whether it is in the table (else the row means nothing)."""
        keys = _sortable_keys(archs)
        rows = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        return rows, self._keys[rows] == keys


def _matching_columns(path: Path, header: list[str], patterns: tuple[str, ...]) -> tuple[str, ...]:
    """Returns the columns that the names and patterns match, each once."""
    columns = []
    for pattern in patterns if header else ():
        matches = [pattern] if pattern in header else fnmatch.filter(header, pattern)
        if not matches:
            raise ConfigError(f"{path} has no column {pattern!r}; it has {', '.join(header)}")
        columns += matches
    return tuple(dict.fromkeys(columns))


def _sortable_keys(archs: Int[np.ndarray, "pop genes"]) -> np.ndarray:
    """Returns one bytes key an architecture; keys sort as architectures do."""
    digits = np.ascontiguousarray(archs.astype(">u4"))
    return digits.view(f"V{digits.itemsize * digits.shape[1]}").ravel()


Column = tuple[list[str], Int[np.ndarray, " rows"]]
"""A column's distinct strings, and the index of each row's."""

Options = tuple[tuple[Option, ...], Int[np.ndarray, " rows"]]
"""A gene's options, ascending, and the index of each row's; -1 where the cell is empty."""


def _read_table(
    path: Path, genes: tuple[str, ...]
) -> tuple[dict[str, Column], tuple[str, ...], Float[np.ndarray, "rows metrics"], Int[np.ndarray, " rows"]]:
    """Returns gene columns, names and values of metrics, and the line that each row ends on, without failed rows."""
    regular_file(f"supernet.table={path}", path)
    parts: list[tuple[list[np.ndarray], np.ndarray, np.ndarray]] = []
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            header = next((row for row in reader if row), [])
            genes = _matching_columns(path, header, genes)
            vocabulary: dict[str, dict[str, int]] = {gene: {} for gene in genes}
            metrics = _metric_columns(path, header, genes)
            rows = ((reader.line_num, row) for row in reader if row)
            for lines, columns in _read_blocks(path, rows, header):
                indices = [_indices(vocabulary[gene], columns[header.index(gene)]) for gene in genes]
                numbers = [_parse_numbers(path, lines, name, columns[header.index(name)]) for name in metrics]
                parts.append((indices, np.stack(numbers, axis=1), lines))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{path} cannot be read as CSV ({error})") from error
    if not parts:
        raise ConfigError(f"{path} has no rows below its header")
    strings = {
        gene: (list(vocabulary[gene]), np.concatenate([part[0][i] for part in parts])) for i, gene in enumerate(genes)
    }
    return strings, metrics, np.concatenate([part[1] for part in parts]), np.concatenate([part[2] for part in parts])


def _metric_columns(path: Path, header: list[str], genes: tuple[str, ...]) -> tuple[str, ...]:
    """Returns the columns that are neither genes nor bookkeeping."""
    if len(set(header)) != len(header):
        raise ConfigError(f"{path} names column {max(header, key=header.count)!r} twice")
    metrics = tuple(name for name in header if name not in genes and not _is_bookkeeping(header, name))
    if header and not metrics:
        raise ConfigError(f"{path} has no metric: every column is a gene")
    return metrics


def _read_blocks(
    path: Path, rows: Iterator[tuple[int, list[str]]], header: list[str]
) -> Iterator[tuple[Int[np.ndarray, " rows"], list[Sequence[str]]]]:
    """Yields lines and columns of at most ROWS_AS_TEXT rows at a time; `rows` are line numbers with cells."""
    status = header.index("status") if "status" in header else None
    while block := list(islice(rows, ROWS_AS_TEXT)):
        for line, row in block:
            if len(row) != len(header):
                raise ConfigError(f"{path}, line {line} has {len(row)} cells where the header has {len(header)}")
        if status is not None:
            block = [(line, row) for line, row in block if row[status] != "failed"]
        if block:
            yield np.array([line for line, _ in block], np.int32), list(zip(*(row for _, row in block), strict=True))


def _indices(vocabulary: dict[str, int], cells: Sequence[str]) -> Int[np.ndarray, " rows"]:
    """Returns the index of each cell's string in `vocabulary`; new strings are added to it."""
    for cell in set(cells) - vocabulary.keys():
        vocabulary[cell] = len(vocabulary)
    return np.fromiter(map(vocabulary.__getitem__, cells), np.int32, len(cells))


def _parse_numbers(
    path: Path, lines: Int[np.ndarray, " rows"], metric: str, cells: Sequence[str]
) -> Float[np.ndarray, " rows"]:
    """Returns a metric's values. Raises ConfigError naming the first line that holds no number."""
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


def _is_bookkeeping(header: list[str], name: str) -> bool:
    """Whether a column is bookkeeping; only tables with the columns `status` and `source`, as runs write them, have any."""
    of_a_run = {"status", "source"} <= set(header)
    return of_a_run and (name in BOOKKEEPING or (name.endswith("_se") and name.removesuffix("_se") in header))


def _parse_options(column: Column) -> Options:
    """Returns a gene's options, as integers if all are, else as numbers if all are, else as strings."""
    strings, rows = column
    filled = [string for string in strings if string.strip()]
    # `01` and `1` are two strings, not one number.
    types = (str,) if any(re.fullmatch(r"-?0\d+", string.strip()) for string in filled) else (int, float, str)
    for option_type in types:
        try:
            parsed = {string: option_type(string) for string in filled}
            break
        except ValueError:
            continue
    options = tuple(sorted(set(parsed.values())))
    index = {option: i for i, option in enumerate(options)}
    indices = np.array([index[parsed[string]] if string in parsed else -1 for string in strings], np.int32)
    return options, indices[rows]


def _infer_space(path: Path, columns: dict[str, Options]) -> tuple[SearchSpace, Int[np.ndarray, "rows genes"]]:
    """Returns the search space and every row's architecture.

    Genes without empty cells come first, since the other genes depend on them.
    """
    full = {gene: column for gene, column in columns.items() if (column[1] >= 0).all()}
    genes = [Gene(gene, options) for gene, (options, _) in full.items()]
    for gene, (options, indices) in columns.items():
        if gene not in full:
            genes.append(Gene(gene, options, _find_condition(path, gene, indices < 0, full)))
    archs = np.stack([np.maximum(columns[gene.name][1], 0) for gene in genes], axis=1)
    return SearchSpace(tuple(genes)), archs


def _find_condition(path: Path, gene: str, empty: Bool[np.ndarray, " rows"], full: dict[str, Options]) -> tuple[str, float]:
    """Returns which other gene must have at least which value for `gene` to exist. Raises ConfigError if there is none."""
    for other, (options, indices) in full.items():
        if isinstance(options[0], str) or empty.all():
            continue
        needed = indices[~empty].min()
        if indices[empty].max() < needed:
            return other, options[needed]
    raise ConfigError(f"{path}: gene column {gene!r} has empty cells that no other gene column explains")


def _without_duplicates(
    path: Path, space: SearchSpace, metrics: tuple[str, ...], archs: np.ndarray, values: np.ndarray, lines: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns distinct architectures, sorted, and their values. Raises ConfigError if rows of one architecture differ."""
    _, first, which = np.unique(_sortable_keys(archs), return_index=True, return_inverse=True)
    repeated = np.flatnonzero(first[which] != np.arange(len(archs)))
    earlier = first[which[repeated]]
    differs = (values[repeated] != values[earlier]) & ~(np.isnan(values[repeated]) & np.isnan(values[earlier]))
    if differs.any():
        row, column = map(int, np.argwhere(differs)[0])
        raise ConfigError(
            f"{path}: lines {lines[earlier[row]]} and {lines[repeated[row]]} are the same network "
            f"{space.decode(archs[repeated[row]])} but disagree about {metrics[column]!r}; keep one, or average them"
        )
    return archs[first], values[first]
