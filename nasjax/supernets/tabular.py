"""A CSV table of measured networks as the super-network: metrics are looked up, so searches run without any network."""

import fnmatch
import hashlib
import math
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from nasjax.csv_reader import CsvFile, listing, read_csv
from nasjax.errors import ConfigError
from nasjax.graphs import declare
from nasjax.objectives import BOOKKEEPING
from nasjax.registry import IN_MEMORY
from nasjax.space import Gene, Option, SearchSpace
from nasjax.types import Population

LOOKUP_CHUNK = 1024
"""Architectures looked up at once, which is what a killed search may lose."""

ROWS_AS_TEXT = 50_000
"""Rows that are held as text while a table is read: ten million cells of text would take gigabytes."""


@dataclass(frozen=True)
class TabularConfig:
    """A table of measured networks, such as the `evaluations.csv` of a run.

    Attributes:
      table: a CSV file with one network a row, and a header. Cells are separated by commas, or by semicolons or tabs
        (numbers may then have decimal commas).
      genes: the columns that describe the architecture, numbers or strings; `kernel_*` means all columns of that form. All
        other columns that are numbers are metrics, NaN where a cell is empty; what else there is is left out. An empty cell
        of a gene means that it does not exist in that row, which another gene must explain (a depth below some value).
      graph: which genes are the edges, links and operations of a cell, such as `edges: edge_TO_FROM`.
    """

    table: str | None = None
    genes: tuple[str, ...] = ()
    graph: Mapping[str, Any] = field(default_factory=dict)

    def create(self, seed: int = 0) -> "TabularNet":
        """Reads the table; `seed` is not used. Raises ConfigError if it is missing, incomplete or contradicts itself."""
        if self.table is None or not self.genes:
            raise ConfigError("supernet=tabular needs supernet.table=FILE.csv and supernet.genes=[column,column,…]")
        return TabularNet(Path(self.table), self.genes, self.graph)


class TabularNet:
    """A super-network whose metrics are looked up. Its search space has every combination of the options in the table."""

    origin: Mapping[str, Any] = IN_MEMORY
    costs: Mapping[str, Any] = MappingProxyType({})
    left_out: Mapping[str, str]
    """Columns that are neither genes nor metrics, and why."""

    def __init__(self, path: Path, genes: tuple[str, ...], graph: Mapping[str, Any] = MappingProxyType({})):
        table = read_csv(f"supernet.table={path}", path)
        rows = _read_rows(table, genes)
        options = {gene: _parse_options(table, column) for gene, column in rows.genes.items()}
        self.space, archs = _infer_space(table.said, options)
        self.graph = declare(self.space, graph)
        self.chunk = LOOKUP_CHUNK
        self.archs, values, disagreeing = _without_duplicates(table.said, self.space, archs, rows)
        self.left_out = {**rows.left_out, **disagreeing}
        kept = [i for i, name in enumerate(rows.metrics) if name not in disagreeing]
        self.metrics = tuple(rows.metrics[i] for i in kept)
        self.values = values[:, kept]
        if not kept:
            raise ConfigError(next(iter(self.left_out.values()), f"{table.said} has no metric: every column is a gene"))
        if self.left_out:
            print(f"nasjax: {path}: left out what is not a metric: {listing(self.left_out)}", file=sys.stderr)
        self._keys = _sortable_keys(self.archs)
        # Contiguous by gene: `nearest` compares all rows gene by gene.
        self._columns = np.ascontiguousarray(self.archs.T)
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        self.context: Mapping[str, Any] = {"table": content, "genes": list(rows.genes)}
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


def _matching_columns(table: CsvFile, patterns: tuple[str, ...]) -> tuple[str, ...]:
    """Returns the columns that the names and patterns match, each once."""
    columns = []
    for pattern in patterns:
        matches = [pattern] if pattern in table.columns else fnmatch.filter(table.columns, pattern)
        if not matches:
            table.position(pattern)  # Raises ConfigError.
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


@dataclass(frozen=True)
class _Rows:
    """Rows of a table without failed ones: columns of genes, metrics and their values, the line that each row ends on.

    `left_out` has the columns that are neither, and says for each why it is not a metric.
    """

    genes: Mapping[str, Column]
    metrics: tuple[str, ...]
    values: Float[np.ndarray, "rows metrics"]
    lines: Int[np.ndarray, " rows"]
    left_out: Mapping[str, str]


def _read_rows(table: CsvFile, patterns: tuple[str, ...]) -> _Rows:
    """Reads the columns of genes that `patterns` match, and all other columns that are numbers."""
    genes = _matching_columns(table, patterns)
    of_a_run = {"status", "source"} <= table.columns.keys()
    bookkeeping = [name for name in table.columns if name not in genes and _is_bookkeeping(table, name)]
    metrics = [name for name in table.columns if name not in genes and not _is_bookkeeping(table, name)]
    vocabulary: dict[str, dict[str, int]] = {gene: {} for gene in genes}
    indices: dict[str, list[np.ndarray]] = {gene: [] for gene in genes}
    values: dict[str, list[np.ndarray]] = {name: [] for name in metrics}
    lines: list[np.ndarray] = []
    reason = f"{table.said}: evaluations.csv has a column of its own with the name of column {{!r}}: rename it"
    left_out = {} if of_a_run else {name: reason.format(name) for name in bookkeeping}
    marks: dict[str, str] = {}
    for block_lines, columns in _read_blocks(table):
        lines.append(block_lines)
        for gene in genes:
            indices[gene].append(_indices(vocabulary[gene], columns[table.columns[gene]]))
        for name in [name for name in metrics if name not in left_out]:
            try:
                values[name].append(_parse_numbers(table, block_lines, name, columns[table.columns[name]], marks))
            except ConfigError as error:
                left_out[name] = str(error)
    if not lines:
        raise ConfigError(f"{table.said} has no rows below its header")
    if len(marks) > 1:
        raise ConfigError(f"{table.said} has decimal commas (column {marks[',']!r}) and decimal points (column "
                          f"{marks['.']!r}): write all numbers in one way")  # fmt: skip
    kept = tuple(name for name in metrics if name not in left_out)
    return _Rows(
        {gene: (list(vocabulary[gene]), np.concatenate(indices[gene])) for gene in genes},
        kept,
        np.stack([np.concatenate(values[name]) for name in kept], axis=1) if kept else np.empty((sum(map(len, lines)), 0)),
        np.concatenate(lines),
        left_out,
    )


def _read_blocks(table: CsvFile) -> Iterator[tuple[Int[np.ndarray, " rows"], list[Sequence[str]]]]:
    """Yields lines and columns of at most ROWS_AS_TEXT rows at a time, without failed rows."""
    status = table.columns.get("status")
    rows = table.rows()
    while block := list(islice(rows, ROWS_AS_TEXT)):
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
    table: CsvFile, lines: Int[np.ndarray, " rows"], metric: str, cells: Sequence[str], marks: dict[str, str]
) -> Float[np.ndarray, " rows"]:
    """Returns a metric's values; an empty cell is NaN. Raises ConfigError naming the first line that holds no number.

    `marks` gets a column for each decimal mark, `,` and `.`, where cells are not separated by commas.
    """
    try:
        values = np.fromiter(map(float, cells), np.float64, len(cells))
    except ValueError:  # Empty cells, decimal commas, or no numbers.
        values = np.full(len(cells), np.nan)
        for i, cell in enumerate(cells):
            try:
                values[i] = table.number(cell)
            except ValueError:
                raise ConfigError(f"{table.said}, line {lines[i]}: column {metric!r} holds {cell!r:.60}, which is not a "
                                  f"number; name it among supernet.genes or remove it") from None  # fmt: skip
    if table.separator != ",":
        marks |= {mark: metric for mark in ",." if any(mark in cell for cell in cells)}
    return values


def _is_bookkeeping(table: CsvFile, name: str) -> bool:
    """Whether a column has the name of one that runs write beside genes and metrics."""
    return name in BOOKKEEPING or (name.endswith("_se") and name.removesuffix("_se") in table.columns)


def _parse_options(table: CsvFile, column: Column) -> Options:
    """Returns a gene's options, as integers if all are (`3.0` is), else as numbers if all are, else as strings."""
    strings, rows = column
    filled = [string for string in strings if string.strip()]
    parsed: dict[str, Option] = {string: string for string in filled}
    # `01` and `1` are two strings, not one number.
    if not any(re.fullmatch(r"-?0\d+", string.strip()) for string in filled):
        with suppress(ValueError):
            numbers = {string: table.number(string) for string in filled}
            if all(map(math.isfinite, numbers.values())):
                whole = all(number.is_integer() for number in numbers.values())
                parsed = {string: _whole(string, number) if whole else number for string, number in numbers.items()}
    options = tuple(sorted(set(parsed.values())))
    index = {option: i for i, option in enumerate(options)}
    indices = np.array([index[parsed[string]] if string in parsed else -1 for string in strings], np.int32)
    return options, indices[rows]


def _whole(string: str, number: float) -> int:
    """The whole number that a string holds; floating point would round those of more than 15 digits."""
    try:
        return int(string)
    except ValueError:
        return int(number)


def _infer_space(said: str, columns: dict[str, Options]) -> tuple[SearchSpace, Int[np.ndarray, "rows genes"]]:
    """Returns the search space and every row's architecture.

    Genes without empty cells come first, since the other genes depend on them.
    """
    full = {gene: column for gene, column in columns.items() if (column[1] >= 0).all()}
    genes = [Gene(gene, options) for gene, (options, _) in full.items()]
    for gene, (options, indices) in columns.items():
        if gene not in full:
            genes.append(Gene(gene, options, _find_condition(said, gene, indices < 0, full)))
    archs = np.stack([np.maximum(columns[gene.name][1], 0) for gene in genes], axis=1)
    return SearchSpace(tuple(genes)), archs


def _find_condition(said: str, gene: str, empty: Bool[np.ndarray, " rows"], full: dict[str, Options]) -> tuple[str, float]:
    """Returns which other gene must have at least which value for `gene` to exist. Raises ConfigError if there is none."""
    for other, (options, indices) in full.items():
        if isinstance(options[0], str) or empty.all():
            continue
        needed = indices[~empty].min()
        if indices[empty].max() < needed:
            return other, options[needed]
    raise ConfigError(f"{said}: gene column {gene!r} has empty cells that no other gene column explains")


def _without_duplicates(
    said: str, space: SearchSpace, archs: Int[np.ndarray, "rows genes"], rows: _Rows
) -> tuple[Int[np.ndarray, "pop genes"], Float[np.ndarray, "pop metrics"], dict[str, str]]:
    """Returns distinct architectures, sorted, their values, and why metrics are none for which equal rows disagree."""
    _, first, which = np.unique(_sortable_keys(archs), return_index=True, return_inverse=True)
    repeated = np.flatnonzero(first[which] != np.arange(len(archs)))
    earlier = first[which[repeated]]
    values, before = rows.values[repeated], rows.values[earlier]
    differs = (values != before) & ~(np.isnan(values) & np.isnan(before))
    disagreeing = {}
    for column in np.flatnonzero(differs.any(0)).tolist():
        row = int(differs[:, column].argmax())
        disagreeing[rows.metrics[column]] = (
            f"{said}: lines {rows.lines[earlier[row]]} and {rows.lines[repeated[row]]} are the same network "
            f"{space.decode(archs[repeated[row]])} but disagree about {rows.metrics[column]!r}; keep one, or average them"
        )
    return archs[first], rows.values[first], disagreeing
