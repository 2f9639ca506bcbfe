"""Reads architectures from CSV files: a column for each gene, empty where it is switched off."""

import csv
from pathlib import Path

import numpy as np
from jaxtyping import Int

from nasjax.errors import ConfigError
from nasjax.host import regular_file
from nasjax.space import SearchSpace


def read_architectures(
    setting: str, path: Path, space: SearchSpace
) -> tuple[Int[np.ndarray, "pop genes"], list[dict[str, str]]]:
    """The architectures of a CSV, and its rows as text; columns that are no genes are ignored.

    `setting` is the setting that the path comes from, for messages. Raises ConfigError for a missing or malformed file, a
    missing gene or an unknown option.
    """
    regular_file(f"{setting}={path}", path)
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (csv.Error, UnicodeDecodeError) as error:
        raise ConfigError(f"{setting}={path} is not a CSV in UTF-8: {error}") from None
    if not rows:
        raise ConfigError(f"{path} has no rows")
    missing = [name for name in space.names if name not in rows[0]]
    if missing:
        raise ConfigError(f"{path} has no column {missing[0]!r}; genes: {', '.join(space.names)}")
    options = {gene.name: {str(option): option for option in gene.options} for gene in space.genes}
    archs = []
    for line, row in enumerate(rows, 2):
        try:
            choices = {name: known.get(row[name], row[name]) for name, known in options.items() if row[name]}
            archs.append(space.encode(choices))
        except ConfigError as error:
            raise ConfigError(f"{path}, line {line}: {error}") from None
    return np.array(archs, np.int32), rows
