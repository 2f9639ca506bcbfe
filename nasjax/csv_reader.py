"""CSV files as people and programs write them: UTF-8 or UTF-16, commas or semicolons, decimal commas, `3.0` for 3."""

import csv
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TextIO

from nasjax.errors import ConfigError
from nasjax.host import regular_file
from nasjax.space import Gene, Option

SEPARATORS = ",;\t"
"""What may stand between cells; the one that occurs most in the header is taken."""

MOST_COLUMNS = 5000
"""Columns of a table: every one of them would be stored with every measurement."""

LONGEST_LINE = 2**24
"""Characters of a line: a file that is not text may have a single line of gigabytes."""


@dataclass(frozen=True)
class CsvFile:
    """A CSV file whose header has been read; `said` names the file in messages, `header` has every column."""

    said: str
    path: Path
    encoding: str
    separator: str
    header: tuple[str, ...]

    def rows(self) -> Iterator[tuple[int, list[str]]]:
        """Yields the line that each row ends on, and its cells; blank lines are left out.

        Raises ConfigError for rows that are shorter or longer than the header, and for a file that is not text.
        """
        rows = _rows(self.said, self.path, self.encoding, self.separator)
        next(rows)
        for line, row in rows:
            if len(row) != len(self.header):
                raise ConfigError(f"{self.said}, line {line} has {len(row)} cells where the header has {len(self.header)}")
            yield line, row

    @cached_property
    def columns(self) -> dict[str, int]:
        """The position of every named column: pandas writes its index without a name."""
        return {name: i for i, name in enumerate(self.header) if name and not re.fullmatch(r"Unnamed: \d+", name)}

    def position(self, name: str) -> int:
        """The position of a column. Raises ConfigError where there is none of this name."""
        if name not in self.columns:
            raise ConfigError(f"{self.said} has no column {name!r}; it has {listing(self.columns)}")
        return self.columns[name]

    def number(self, cell: str) -> float:
        """The number in a cell, NaN for an empty one. Raises ValueError for anything else."""
        if self.separator != "," and re.fullmatch(r"\s*[+-]?\d*,\d+([eE][+-]?\d+)?\s*", cell):
            cell = cell.replace(",", ".")  # A decimal comma.
        return float(cell) if cell.strip() else float("nan")

    def option(self, gene: Gene, cell: str) -> Option:
        """The option of a gene that a cell holds (`3.0` is 3, too); the cell itself where the gene has none like it."""
        for option in gene.options:
            if str(option) == cell.strip():
                return option
        for option in gene.options:
            if isinstance(option, int | float) and not isinstance(option, bool) and self._is_number(cell, option):
                return option
        return cell

    def _is_number(self, cell: str, value: float) -> bool:
        try:
            return self.number(cell) == value
        except ValueError:
            return False


def read_csv(said: str, path: Path) -> CsvFile:
    """Reads the header of a CSV file. Raises ConfigError for a file that is missing, empty, or cannot be read as CSV."""
    with regular_file(said, path).open("rb") as file:
        start = file.read(2)
    # UTF-16 has a zero beside every Latin letter, and mostly a mark in front.
    marks = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
    encoding = marks.get(start) or ("utf-16-le" if start[1:] == b"\0" and start[:1] != b"\0" else "utf-8-sig")
    separator = _separator(said, path, encoding)
    header = tuple(name.strip() for name in next(_rows(said, path, encoding, separator), (1, []))[1])
    if not header:
        raise ConfigError(f"{said} is empty")
    if len(header) > MOST_COLUMNS:
        raise ConfigError(f"{said} has {len(header)} columns, {MOST_COLUMNS} at most are read: leave out what is not needed")
    found = CsvFile(said, path, encoding, separator, header)
    if twice := [name for name, count in Counter(header).items() if count > 1 and name in found.columns]:
        raise ConfigError(f"{said} names column {twice[0]!r} twice")
    return found


def listing(names: Iterable[str]) -> str:
    """The first names, separated by commas, for messages."""
    words = list(names)
    return ", ".join(f"{word:.60}" for word in words[:20]) + f", … ({len(words)} in all)" * (len(words) > 20)


def _separator(said: str, path: Path, encoding: str) -> str:
    """What separates the cells of a file: what occurs most in its first line, outside quotes; else a comma."""
    try:
        with path.open(newline="", encoding=encoding) as file:
            first = next((line for line in _lines(said, file) if line.strip()), "")
    except UnicodeError as error:
        raise ConfigError(f"{said} cannot be read as CSV ({error})") from None
    return max(SEPARATORS, key=re.sub('"[^"]*"', "", first).count)


def _rows(said: str, path: Path, encoding: str, separator: str) -> Iterator[tuple[int, list[str]]]:
    """Yields the line that each row ends on, and its cells, without rows of empty cells only."""
    try:
        with path.open(newline="", encoding=encoding) as file:
            reader = csv.reader(_lines(said, file), delimiter=separator)
            yield from ((reader.line_num, row) for row in reader if any(row))
    except (UnicodeError, csv.Error) as error:
        raise ConfigError(f"{said} cannot be read as CSV ({error})") from None


def _lines(said: str, file: TextIO) -> Iterator[str]:
    """Yields the lines of a file. Raises ConfigError for one that no table has."""
    while line := file.readline(LONGEST_LINE):
        if len(line) == LONGEST_LINE:
            raise ConfigError(f"{said} cannot be read as CSV (a line has more than {LONGEST_LINE} characters)")
        yield line
