"""Measurements: stored in one SQLite file, found again, never made twice.

A measurement's key is the digest of what was measured (super-network, weights, data, settings: the *context*) and the
canonical architecture. Beside the measurements, which runs share, each run keeps the order of its evaluations and its
tactic's state; all that belongs together is written in one transaction.
"""

import json
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from nasjax.types import Population

VERSION = 1

TABLES = """
create table if not exists contexts (digest text primary key, description text not null);
create table if not exists measurements (
    key text primary key, context text not null, arch text not null, metrics text not null, seconds real not null);
create table if not exists evaluations (
    run text not null, position integer not null, step integer not null, key text not null, source text not null,
    primary key (run, position));
create table if not exists states (
    run text primary key, step integer not null, told integer not null, state blob not null);
"""


@dataclass(frozen=True)
class Evaluation:
    """One evaluation of a run: where its values came from (`measured` or `archive`), and what was found."""

    position: int
    step: int
    source: str
    arch: tuple[int, ...]
    metrics: Mapping[str, float]
    seconds: float


def check_archive(path: Path) -> None:
    """Raises ValueError for a path where no archive can be, before anything is written."""
    if not path.parent.is_dir():
        raise ValueError(f"archive={path}: there is no folder {path.parent}")
    if path.is_dir():
        raise ValueError(f"archive={path} is a folder; name a file")
    if path.is_file() and path.stat().st_size and not path.read_bytes()[:16].startswith(b"SQLite format 3"):
        raise ValueError(f"{path} cannot be used as an archive (it is not a database)")


def digest(description: Any) -> str:
    """A short name for plain JSON, equal for equal content."""
    return sha256(json.dumps(description, sort_keys=True, default=str).encode()).hexdigest()[:32]


class Archive:
    """One archive file (or memory, with None), as one run sees it. Raises ValueError for a file that is not an archive."""

    def __init__(self, path: Path | None, run: str):
        self._run = run
        try:
            self._base = sqlite3.connect(":memory:" if path is None else path, timeout=60.0)
            self._base.execute("pragma synchronous = full")
            version = self._base.execute("pragma user_version").fetchone()[0]
            if version > VERSION:
                raise ValueError(
                    f"{path} was written by a newer nasjax (format {version}; this one reads {VERSION}): upgrade"
                )
            with self._base:
                self._base.executescript(TABLES)
                self._base.execute(f"pragma user_version = {VERSION}")
        except sqlite3.Error as error:
            raise ValueError(f"{path} cannot be used as an archive ({error})") from error

    def close(self) -> None:
        self._base.close()

    # -- measurements -------------------------------------------------------------------------------------------------

    def find(self, context: str, archs: Population) -> list[dict[str, float] | None]:
        """What is known of each architecture, or None."""
        found = []
        for arch in np.asarray(archs):
            row = self._base.execute("select metrics from measurements where key = ?", (_key(context, arch),)).fetchone()
            found.append(None if row is None else json.loads(row[0]))
        return found

    def describe(self, context: Mapping[str, Any]) -> str:
        """The digest of a context, whose description is kept beside the measurements."""
        name = digest(context)
        with self._base:
            self._base.execute(
                "insert or ignore into contexts values (?, ?)", (name, json.dumps(context, sort_keys=True, default=str))
            )
        return name

    def measured(
        self,
        context: str,
        archs: Population,
        metrics: Mapping[str, Float[np.ndarray, " pop"]],
        seconds: float,
        positions: Sequence[int] = (),
        step: int = 0,
    ) -> None:
        """Stores measurements made in `seconds` together, and that they were the run's evaluations at `positions`."""
        with self._base:
            for i, arch in enumerate(np.asarray(archs)):
                values = {name: float(column[i]) for name, column in metrics.items()}
                row = (_key(context, arch), context, json.dumps(arch.tolist()), json.dumps(values), seconds / len(archs))
                self._base.execute("insert or ignore into measurements values (?, ?, ?, ?, ?)", row)
            self._log(context, archs, positions, step, "measured")

    def reused(self, context: str, archs: Population, positions: Sequence[int], step: int) -> None:
        """Stores that known measurements were the run's evaluations at `positions`."""
        with self._base:
            self._log(context, archs, positions, step, "archive")

    def _log(self, context: str, archs: Population, positions: Sequence[int], step: int, source: str) -> None:
        for arch, position in zip(np.asarray(archs), positions, strict=False):
            row = (self._run, position, step, _key(context, arch), source)
            self._base.execute("insert or ignore into evaluations values (?, ?, ?, ?, ?)", row)

    # -- the run ------------------------------------------------------------------------------------------------------

    def evaluations(self, first: int = 0) -> list[Evaluation]:
        """The run's evaluations in order, from position `first` on."""
        rows = self._base.execute(
            "select position, step, source, arch, metrics, seconds from evaluations join measurements using (key) "
            "where run = ? and position >= ? order by position",
            (self._run, first),
        )
        return [
            Evaluation(position, step, source, tuple(json.loads(arch)), json.loads(metrics), seconds)
            for position, step, source, arch, metrics, seconds in rows
        ]

    def forget(self, first: int, context: str, archs: Population) -> None:
        """Drops what an interrupted step logged from `first` on, where it was about other architectures than `archs`.

        That happens where the budget grew meanwhile; the measurements themselves stay.
        """
        logged = self._base.execute(
            "select position, key from evaluations where run = ? and position >= ?", (self._run, first)
        ).fetchall()
        keys = [_key(context, arch) for arch in np.asarray(archs)]
        if any(position - first >= len(keys) or keys[position - first] != key for position, key in logged):
            with self._base:
                self._base.execute("delete from evaluations where run = ? and position >= ?", (self._run, first))

    def save_state(self, step: int, told: int, state: bytes) -> None:
        """Keeps the tactic's state after a step, and how many evaluations it was told of."""
        with self._base:
            self._base.execute("insert or replace into states values (?, ?, ?, ?)", (self._run, step, told, state))

    def state(self) -> tuple[int, int, bytes] | None:
        """The last step whose state was kept, how many evaluations it knew, and the state."""
        return self._base.execute("select step, told, state from states where run = ?", (self._run,)).fetchone()


def _key(context: str, arch: np.ndarray) -> str:
    return f"{context}:{','.join(map(str, arch.tolist()))}"
