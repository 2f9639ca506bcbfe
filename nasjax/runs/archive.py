"""The archive: all measurements in one SQLite file, which several runs may share, also at the same time.

A measurement's key is the digest of its *context* (super-network, weights, data, evaluation settings) and the canonical
architecture. Each run also stores the order of its evaluations, its tactic's state, the errors of its predictors and its
reduced search space. Before a run measures architectures it claims them, so that no other running process measures them too.
"""

import errno
import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped

from nasjax.errors import FAILURE, ConfigError
from nasjax.host import regular_file
from nasjax.runs.claims import Claimant
from nasjax.types import Population

VERSION = 5
"""The version of the format: 2 added claims, 3 predictors' errors and reductions, 4 which predictor was chosen, 5 why
measurements failed."""

LOCK_TIMEOUT = 60.0
"""Seconds to wait for the transaction of another process."""

TABLES = """
create table if not exists contexts (digest text primary key, description text not null);
create table if not exists measurements (
    key text primary key, context text not null, arch text not null, metrics text not null, seconds real not null,
    failure text not null default '');
create table if not exists evaluations (
    run text not null, position integer not null, step integer not null, key text not null, source text not null,
    primary key (run, position));
create table if not exists states (
    run text primary key, step integer not null, told integer not null, state blob not null);
create table if not exists fits (
    run text not null, step integer not null, objective text not null, rows integer not null,
    mape real, rmse real, tau real, chosen text not null default '', primary key (run, step, objective));
create table if not exists reductions (run text primary key, options text not null);
create table if not exists claims (key text primary key, holder text not null);
"""


@dataclass(frozen=True)
class Evaluation:
    """One evaluation of a run.

    `position` counts the run's evaluations from 0, `step` the steps of its tactic. `source` says where the values came from:
    `measured` or `archive`. `seconds` is this network's share of the time that its measurement took. `failure` says why it
    failed, where the evaluator did ("" otherwise).
    """

    position: int
    step: int
    source: str
    arch: tuple[int, ...]
    metrics: Mapping[str, float]
    seconds: float
    failure: str = ""


def check_archive(path: Path) -> None:
    """Raises ConfigError for a path that cannot be an archive; writes nothing."""
    if not path.parent.is_dir():
        raise ConfigError(f"archive={path}: there is no folder {path.parent}")
    if not path.exists():
        return
    with regular_file(f"archive={path}", path).open("rb") as file:
        header = file.read(100)
    if header and not header.startswith(b"SQLite format 3"):
        raise ConfigError(f"{path} cannot be used as an archive (it is not a database)")
    # `pragma user_version` is at offset 60: https://www.sqlite.org/fileformat.html, section 1.3.
    _check_version(path, int.from_bytes(header[60:64], "big"))


def _check_version(path: Path | None, version: int) -> None:
    if version > VERSION:
        raise ConfigError(f"{path} was written by a newer nasjax (format {version}; this one reads {VERSION}): upgrade")


def digest(description: Any) -> str:
    """The first 32 hexadecimal digits of the SHA-256 of data as sorted JSON; other types enter as their `str`."""
    return sha256(json.dumps(description, sort_keys=True, default=str).encode()).hexdigest()[:32]


class Archive:
    """An archive as one run uses it; with `path=None` it is kept in memory.

    Raises ConfigError for a file that is not an archive, and OSError where one cannot be written.
    """

    def __init__(self, path: Path | None, run: str):
        self._run = run
        self._path = path
        self._claimant = None if path is None else Claimant(path)
        try:
            self._db = sqlite3.connect(":memory:" if path is None else path, timeout=LOCK_TIMEOUT)
            self._db.execute("pragma synchronous = full")
            version = self._db.execute("pragma user_version").fetchone()[0]
            _check_version(path, version)
            if version < VERSION:
                with self._transaction():
                    if version >= 1:
                        self._db.execute("alter table measurements add column failure text not null default ''")
                    if version == 3:
                        self._db.execute("alter table fits add column chosen text not null default ''")
                    for table in TABLES.split(";"):
                        self._db.execute(table)
                    self._db.execute(f"pragma user_version = {VERSION}")
        except sqlite3.Error as error:
            raise ConfigError(f"{path} cannot be used as an archive ({error})") from error

    def close(self) -> None:
        """Gives up the run's claims and closes the file."""
        if self._claimant is not None:
            self._claimant.release()
        self._db.close()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """A transaction. Raises OSError, with the file's name, where it cannot be written."""
        try:
            with self._db:
                self._db.execute("begin immediate")
                yield
        except sqlite3.OperationalError as error:
            reasons = {sqlite3.SQLITE_FULL: (errno.ENOSPC, "disk full"),
                       sqlite3.SQLITE_BUSY: (errno.EBUSY, f"locked by another process for {LOCK_TIMEOUT:g} s")}  # fmt: skip
            number, message = reasons.get(error.sqlite_errorcode & 0xFF, (errno.EIO, str(error)))
            raise OSError(number, message, str(self._path)) from error

    # -- measurements -------------------------------------------------------------------------------------------------

    def find(self, context: str, archs: Population) -> list[dict[str, float] | None]:
        """The stored metrics of each architecture; None where it has not been measured."""
        found: list[dict[str, float] | None] = []
        for arch in np.asarray(archs):
            row = self._db.execute("select metrics from measurements where key = ?", (_key(context, arch),)).fetchone()
            found.append(None if row is None else json.loads(row[0]))
        return found

    def claim(self, context: str, archs: Population, limit: int) -> tuple[list[int], list[int]]:
        """Claims the first `limit` architectures that are not measured and that no other running process has claimed.

        Returns the rows claimed, and the rows that remain: those claimed by others, and those beyond `limit`. Rows that have
        been measured are in neither.
        """
        claimed: list[int] = []
        remaining: list[int] = []
        if self._claimant is not None:
            self._claimant.acquire()
        with self._transaction():
            taken = self._keys_of_others()
            for i, arch in enumerate(np.asarray(archs)):
                key = _key(context, arch)
                if len(claimed) == limit or key in taken:
                    remaining.append(i)
                elif not self._db.execute("select 1 from measurements where key = ?", (key,)).fetchone():
                    if self._claimant is not None:
                        self._db.execute("insert into claims values (?, ?)", (key, self._claimant.name))
                    claimed.append(i)
        return claimed, remaining

    def _keys_of_others(self) -> set[str]:
        """The keys that other running processes have claimed; all other claims are deleted."""
        claims = self._db.execute("select key, holder from claims").fetchall()
        names = {name for _, name in claims}
        me = self._claimant
        gone = {name for name in names if me and (name == me.name or not me.is_running(name))}
        self._db.executemany("delete from claims where holder = ?", [(name,) for name in gone])
        return {key for key, name in claims if name not in gone}

    def add_context(self, context: Mapping[str, Any]) -> str:
        """Stores the description of a context; returns its digest."""
        name = digest(context)
        with self._transaction():
            self._db.execute(
                "insert or ignore into contexts values (?, ?)", (name, json.dumps(context, sort_keys=True, default=str))
            )
        return name

    def add_measurements(
        self,
        context: str,
        archs: Population,
        metrics: Mapping[str, Shaped[np.ndarray, " pop"]],
        seconds: float,
        positions: Sequence[int] = (),
        step: int = 0,
    ) -> None:
        """Stores measurements that took `seconds` in all, as the run's evaluations at `positions`; deletes their claims.

        Beside the metrics, `FAILURE` may say why networks failed.
        """
        failures = metrics.get(FAILURE, np.full(len(archs), ""))
        with self._transaction():
            for i, arch in enumerate(np.asarray(archs)):
                values = {name: float(column[i]) for name, column in metrics.items() if name != FAILURE}
                row = (_key(context, arch), context, json.dumps(arch.tolist()), json.dumps(values), seconds / len(archs),
                       str(failures[i]))  # fmt: skip
                self._db.execute("insert or ignore into measurements values (?, ?, ?, ?, ?, ?)", row)
                self._db.execute("delete from claims where key = ?", row[:1])
            self._add_evaluations(context, archs, positions, step, "measured")

    def add_reused(self, context: str, archs: Population, positions: Sequence[int], step: int) -> None:
        """Stores measurements that the archive already has as the run's evaluations at `positions`."""
        with self._transaction():
            self._add_evaluations(context, archs, positions, step, "archive")

    def _add_evaluations(self, context: str, archs: Population, positions: Sequence[int], step: int, source: str) -> None:
        for arch, position in zip(np.asarray(archs), positions, strict=False):
            row = (self._run, position, step, _key(context, arch), source)
            self._db.execute("insert or ignore into evaluations values (?, ?, ?, ?, ?)", row)

    # -- the run ------------------------------------------------------------------------------------------------------

    def evaluations(self, first: int = 0) -> list[Evaluation]:
        """The run's evaluations in order, from position `first` on."""
        rows = self._db.execute(
            "select position, step, source, arch, metrics, seconds, failure from evaluations join measurements using (key) "
            "where run = ? and position >= ? order by position",
            (self._run, first),
        )
        return [
            Evaluation(position, step, source, tuple(json.loads(arch)), json.loads(metrics), seconds, failure)
            for position, step, source, arch, metrics, seconds, failure in rows
        ]

    def discard_interrupted_step(self, first: int, context: str, archs: Population) -> None:
        """Deletes the evaluations from position `first` on, unless they are those of `archs`; measurements stay.

        A run that was interrupted and is resumed with a larger budget may ask for other architectures in that step.
        """
        stored = self._db.execute(
            "select position, key from evaluations where run = ? and position >= ?", (self._run, first)
        ).fetchall()
        keys = [_key(context, arch) for arch in np.asarray(archs)]
        if any(position - first >= len(keys) or keys[position - first] != key for position, key in stored):
            with self._transaction():
                self._db.execute("delete from evaluations where run = ? and position >= ?", (self._run, first))

    def save_fits(self, step: int, fits: Sequence[tuple[str, int, float, float, float, str]]) -> None:
        """Stores the errors of a step's predictors: objective, rows, MAPE (%), RMSE, Kendall's tau, and which was chosen."""
        with self._transaction():
            for row in fits:
                self._db.execute("insert or replace into fits values (?, ?, ?, ?, ?, ?, ?, ?)", (self._run, step, *row))

    def fits(self) -> list[tuple[int, str, int, float, float, float, str]]:
        """What `save_fits` stored, each with its step."""
        columns = "step, objective, rows, mape, rmse, tau, chosen"
        return self._db.execute(f"select {columns} from fits where run = ? order by step, rowid", (self._run,)).fetchall()

    def save_reduction(self, options: Sequence[Sequence[int]]) -> None:
        """Stores the options of each gene that the run's search space was reduced to."""
        with self._transaction():
            self._db.execute("insert or replace into reductions values (?, ?)", (self._run, json.dumps(options)))

    def reduction(self) -> tuple[tuple[int, ...], ...] | None:
        """What `save_reduction` stored; None where the space was not reduced."""
        row = self._db.execute("select options from reductions where run = ?", (self._run,)).fetchone()
        return row and tuple(map(tuple, json.loads(row[0])))

    def save_state(self, step: int, told: int, state: bytes) -> None:
        """Stores the tactic's state after a step, and the number of evaluations that it was updated with."""
        with self._transaction():
            self._db.execute("insert or replace into states values (?, ?, ?, ?)", (self._run, step, told, state))

    def state(self) -> tuple[int, int, bytes] | None:
        """What `save_state` stored last; None before the first step."""
        return self._db.execute("select step, told, state from states where run = ?", (self._run,)).fetchone()


def _key(context: str, arch: np.ndarray) -> str:
    return f"{context}:{','.join(map(str, arch.tolist()))}"
