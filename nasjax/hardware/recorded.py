"""Latencies in CSV files: a column for each gene and one of milliseconds."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Int

from nasjax.csv_reader import CsvFile, listing
from nasjax.errors import ConfigError
from nasjax.hardware.profile import Profile
from nasjax.runs.csv_io import read_architectures
from nasjax.space import SearchSpace

Latencies = tuple[Int[np.ndarray, "rows genes"], Float[np.ndarray, " rows"]]
"""Architectures and the milliseconds of each."""


def read_latencies(setting: str, file: Path, column: str, space: SearchSpace) -> tuple[Latencies, Latencies]:
    """Reads a CSV: its measured and its estimated latencies, each architecture once with the median of its rows.

    A row is estimated if its `obtained` column says so; without that column all rows are measured. An architecture with both
    is measured. `setting` is the one that named the file. Raises ConfigError if a row has no latency above 0, or none is
    measured.
    """
    archs, rows, table = read_architectures(setting, file, space)
    if column not in table.columns:
        raise ConfigError(f"{file} has no column {column!r} of milliseconds; it has {listing(table.columns)}")
    measured: dict[bytes, list[float]] = {}
    estimated: dict[bytes, list[float]] = {}
    for arch, (line, row) in zip(archs, rows, strict=True):
        found = estimated if row.get("obtained") == "estimated" else measured
        found.setdefault(arch.tobytes(), []).append(_milliseconds(table, row[column], f"{file}, line {line}: {column}"))
    if not measured:
        raise ConfigError(f"{setting}={file} has only estimated latencies; at least one must be measured")
    only_estimated = {arch: values for arch, values in estimated.items() if arch not in measured}
    return _medians(measured, space), _medians(only_estimated, space)


def _milliseconds(table: CsvFile, cell: str, where: str) -> float:
    """A latency in a file. Raises ConfigError for anything but a finite number above 0."""
    try:
        value = table.number(cell)
    except ValueError:
        value = np.nan
    if not 0 < value < np.inf:
        raise ConfigError(f"{where}={cell!r:.60} is not a latency above 0")
    return value


def _medians(rows: Mapping[bytes, list[float]], space: SearchSpace) -> Latencies:
    """Each architecture with the median of its latencies."""
    archs = np.frombuffer(b"".join(rows), np.int32).reshape(len(rows), len(space.names))
    return archs.copy(), np.array([float(np.median(values)) for values in rows.values()])


def latency_rows(profile: Profile, number: int) -> tuple[list[str], list[list[Any]]]:
    """Header and rows of a table that `hardware=csv` reads: measured networks, then `number` random ones with estimates."""
    space = profile.net.space
    drawn = np.asarray(space.sample(jax.random.key(1), number), np.int32)
    archs = np.concatenate([profile.archs, drawn])
    first = np.sort(np.unique(archs, axis=0, return_index=True)[1])
    estimates = profile.model.exact(archs)
    rows = []
    for i in first.tolist():
        measured = i < len(profile.archs)
        choices = space.decode(archs[i])
        latency = profile.milliseconds[i] if measured else estimates[i]
        options = [choices.get(name, "") for name in space.names]
        rows.append([*options, float(latency), float(estimates[i]), "measured" if measured else "estimated"])
    return [*space.names, "latency", "estimate", "obtained"], rows
