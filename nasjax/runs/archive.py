"""The archive: all measurements in one SQLite file, which several runs may share, also at the same time.

A measurement's key is the digest of its *context* (super-network, weights, data, evaluation settings) and the canonical
architecture. Each run also stores the order of its evaluations, its tactic's state, the errors of its predictors and its
reduced search space. Before a run measures architectures it claims them, so that no other running process measures them too.
"""

import errno
import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped

from nasjax.errors import FAILURE, ConfigError, naming_damage
from nasjax.host import is_database, parse_json, regular_file
from nasjax.runs.claims import Claimant
from nasjax.types import Population

VERSION = 5
"""The version of the format: 2 added claims, 3 predictors' errors and reductions, 4 which predictor was chosen, 5 why
measurements failed."""

DAMAGED = "restore it from a copy, or begin with another; it holds the measurements"
"""What to do about a damaged archive."""

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


FitRow = tuple[str, int, float, float, float, str]
"""Errors of a fitted predictor: objective, rows, MAPE (%), RMSE, Kendall's tau, and the base predictor that was chosen."""


def check_archive(path: Path) -> None:
    """Raises ConfigError for a path that cannot be an archive; writes nothing."""
    if not path.parent.is_dir():
        raise ConfigError(f"archive={path}: there is no folder {path.parent}")
    if not path.exists():
        return
    with regular_file(f"archive={path}", path).open("rb") as file:
        header = file.read(100)
    if not header:
        return
    if not is_database(path):
        raise ConfigError(f"{path} cannot be used as an archive (it is not a database)")
    # `pragma user_version` is at offset 60: https://www.sqlite.org/fileformat.html, section 1.3.
    _check_version(path, int.from_bytes(header[60:64], "big"))
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", timeout=LOCK_TIMEOUT, uri=True)) as base:
            _check_content(path, base)
    except UnicodeDecodeError as error:  # The name of a table, or what is said of the damage, has damaged bytes.
        raise damaged_archive(path, error) from error
    except sqlite3.Error as error:
        raise _unusable(path, error) from error


def _check_content(path: Path, base: sqlite3.Connection) -> None:
    """Raises ConfigError for a database with damaged pages or other tables, and sqlite3.Error where it cannot be read."""
    if (found := base.execute("pragma quick_check(1)").fetchone()[0]) != "ok":
        raise damaged_archive(path, found)
    with closing(sqlite3.connect(":memory:")) as empty:
        empty.executescript(TABLES)
        wanted = _columns(empty)
    present = _columns(base)
    if present and not wanted.keys() & present.keys():
        raise ConfigError(f"{path} cannot be used as an archive (it is a database of something else)")
    if base.execute("pragma user_version").fetchone()[0] == VERSION:
        for table, columns in wanted.items():
            if missing := columns - present.get(table, set()):
                raise damaged_archive(path, f"it lacks {table}.{min(missing)}")


def _columns(base: sqlite3.Connection) -> dict[str, set[str]]:
    """The names of the columns of each table."""
    tables = [name for (name,) in base.execute("select name from sqlite_master where type = 'table'")]
    return {table: {row[1] for row in base.execute(f'pragma table_info("{table}")')} for table in tables}


def damaged_archive(path: Path | None, reason: object) -> ConfigError:
    """The error for an archive whose content is not what was stored."""
    return ConfigError(f"{path} is damaged ({' '.join(str(reason).split()):.200}): {DAMAGED}")


def _unusable(path: Path | None, error: sqlite3.Error) -> Exception:
    """The error for an archive that SQLite cannot read or write: OSError for the disk's part, else ConfigError."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    reasons = {sqlite3.SQLITE_FULL: (errno.ENOSPC, "disk full"),
               sqlite3.SQLITE_BUSY: (errno.EBUSY, f"locked by another process for {LOCK_TIMEOUT:g} s")}  # fmt: skip
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return damaged_archive(path, error)
    if isinstance(error, sqlite3.OperationalError):
        return OSError(*reasons.get(code, (errno.EIO, str(error))), str(path))
    return error


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
        """A transaction. Raises OSError, with the file's name, where it cannot be written, and ConfigError for damage."""
        try:
            with self._db:
                self._db.execute("begin immediate")
                yield
        except sqlite3.DatabaseError as error:
            raise _unusable(self._path, error) from error

    def _rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """The rows that a query finds. Raises as `_transaction` does."""
        try:
            return self._db.execute(query, values).fetchall()
        except sqlite3.DatabaseError as error:
            raise _unusable(self._path, error) from error

    def naming_damage(self) -> AbstractContextManager[None]:
        """Turns the errors of a block that only reads what was stored into one ConfigError that names the file."""
        return naming_damage(self._path, DAMAGED)

    # -- measurements -------------------------------------------------------------------------------------------------

    def find(self, context: str, archs: Population) -> list[dict[str, float] | None]:
        """The stored metrics of each architecture; None where it has not been measured."""
        found: list[dict[str, float] | None] = []
        for arch in np.asarray(archs):
            rows = self._rows("select metrics from measurements where key = ?", _key(context, arch))
            with self.naming_damage():
                found.append(read_metrics(rows[0][0]) if rows else None)
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
        rows = self._rows(
            "select position, step, source, arch, metrics, seconds, failure from evaluations join measurements using (key) "
            "where run = ? and position >= ? order by position",
            self._run,
            first,
        )
        with self.naming_damage():
            return [_evaluation(*row) for row in rows]

    def discard_interrupted_step(self, first: int, context: str, archs: Population) -> None:
        """Deletes the evaluations from position `first` on, unless they are those of `archs`; measurements stay.

        A run that was interrupted and is resumed with a larger budget may ask for other architectures in that step.
        """
        stored = self._rows("select position, key from evaluations where run = ? and position >= ?", self._run, first)
        keys = [_key(context, arch) for arch in np.asarray(archs)]
        if any(position - first >= len(keys) or keys[position - first] != key for position, key in stored):
            with self._transaction():
                self._db.execute("delete from evaluations where run = ? and position >= ?", (self._run, first))

    def save_fits(self, step: int, fits: Sequence[FitRow]) -> None:
        """Stores the errors of a step's predictors."""
        with self._transaction():
            self._add_fits(step, fits)

    def _add_fits(self, step: int, fits: Sequence[FitRow]) -> None:
        rows = [(self._run, step, *row) for row in fits]
        self._db.executemany("insert or replace into fits values (?, ?, ?, ?, ?, ?, ?, ?)", rows)

    def fits(self) -> list[tuple[int, str, int, float, float, float, str]]:
        """What `save_fits` stored, each with its step."""
        columns = "step, objective, rows, mape, rmse, tau, chosen"
        return self._rows(f"select {columns} from fits where run = ? order by step, rowid", self._run)

    def save_reduction(self, options: Sequence[Sequence[int]]) -> None:
        """Stores the options of each gene that the run's search space was reduced to."""
        with self._transaction():
            self._db.execute("insert or replace into reductions values (?, ?)", (self._run, json.dumps(options)))

    def reduction(self) -> tuple[tuple[int, ...], ...] | None:
        """What `save_reduction` stored; None where the space was not reduced."""
        rows = self._rows("select options from reductions where run = ?", self._run)
        with self.naming_damage():
            return tuple(map(read_integers, parse_json(rows[0][0]))) if rows else None

    def save_state(self, step: int, told: int, state: bytes, fits: Sequence[FitRow] = ()) -> None:
        """Stores the tactic's state after a step, the evaluations that it was updated with, and its predictors' errors."""
        with self._transaction():
            self._add_fits(step, fits)
            self._db.execute("insert or replace into states values (?, ?, ?, ?)", (self._run, step, told, state))

    def state(self) -> tuple[int, int, bytes] | None:
        """What `save_state` stored last; None before the first step."""
        rows = self._rows("select step, told, state from states where run = ?", self._run)
        with self.naming_damage():
            for step, told, state in rows:
                return _integer(step), _integer(told), bytes(state)
        return None


def _key(context: str, arch: np.ndarray) -> str:
    return f"{context}:{','.join(map(str, arch.tolist()))}"


def _evaluation(position: Any, step: Any, source: Any, arch: Any, metrics: Any, seconds: Any, failure: Any) -> Evaluation:
    """An evaluation from its row. Raises ValueError or TypeError for values that were not stored by `Archive`."""
    genes, values = read_integers(parse_json(arch)), read_metrics(metrics)
    return Evaluation(_integer(position), _integer(step), str(source), genes, values, float(seconds), str(failure))


def read_metrics(text: Any) -> dict[str, float]:
    """The metrics of a measurement from their cell. Raises ValueError, TypeError or AttributeError for another's."""
    return {name: float(value) for name, value in parse_json(text).items()}


def read_integers(values: Any) -> tuple[int, ...]:
    """An architecture, or a gene's options. Raises ValueError or TypeError for anything but whole numbers from 0 on."""
    return tuple(map(_integer, values))


def _integer(value: Any) -> int:
    if not isinstance(value, int) or not 0 <= value < 2**31:
        raise ValueError(f"{value!r:.60} where a whole number is stored")
    return value
