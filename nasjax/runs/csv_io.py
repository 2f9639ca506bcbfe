"""Reads architectures from CSV files: a column for each gene, empty where it is switched off."""

from pathlib import Path

import numpy as np
from jaxtyping import Int

from nasjax.csv_reader import CsvFile, listing, read_csv
from nasjax.errors import ConfigError
from nasjax.space import SearchSpace


def read_architectures(
    setting: str, path: Path, space: SearchSpace
) -> tuple[Int[np.ndarray, "pop genes"], list[tuple[int, dict[str, str]]], CsvFile]:
    """The architectures of a CSV, its rows as text with their lines, and the file; columns that are no genes are ignored.

    `setting` is the setting that the path comes from, for messages. Raises ConfigError for a missing or malformed file, a
    missing gene or an unknown option.
    """
    table = read_csv(f"{setting}={path}", path)
    rows = [(line, {name: row[i] for name, i in table.columns.items()}) for line, row in table.rows()]
    if not rows:
        raise ConfigError(f"{table.said} has no rows")
    missing = [name for name in space.names if name not in table.columns]
    if missing:
        raise ConfigError(f"{table.said} has no column {missing[0]!r}; genes: {listing(space.names)}")
    archs = []
    for line, row in rows:
        try:
            choices = {gene.name: table.option(gene, row[gene.name]) for gene in space.genes if row[gene.name].strip()}
            archs.append(space.encode(choices))
        except ConfigError as error:
            raise ConfigError(f"{table.said}, line {line}: {error}") from None
    return np.array(archs, np.int32), rows, table
