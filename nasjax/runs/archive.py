"""Measurements: stored in one SQLite file, found again, never made twice.

A measurement's key is the digest of what was measured (super-network, weights, data, settings: the *context*) and the
canonical architecture. Beside the measurements, which runs share, each run keeps the order of its evaluations and its
tactic's state; all that belongs together is written in one transaction. Several processes may use one file: before a run
measures, it claims the architectures, and leaves to another living process what that one has claimed.
"""

from nasjax.errors import ConfigError
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
from jaxtyping import Float

from nasjax.runs.claims import Claimant
from nasjax.types import Population

VERSION = 4
"""Of the file's format; 2 brought the claims, 3 predictors' errors and reductions, 4 which predictor was chosen."""

LOCKED = 60.0
"""Seconds to wait for another process's transaction."""

TABLES = """
create table if not exists contexts (digest text primary key, description text not null);
create table if not exists measurements (
    key text primary key, context text not null, arch text not null, metrics text not null, seconds real not null);
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
    """One evaluation of a run: where its values came from (`measured` or `archive`), and what was found."""

    position: int
    step: int
    source: str
    arch: tuple[int, ...]
    metrics: Mapping[str, float]
    seconds: float


def check_archive(path: Path) -> None:
    """Raises ConfigError for a path where no archive can be, before anything is written."""
    if not path.parent.is_dir():
        raise ConfigError(f"archive={path}: there is no folder {path.parent}")
    if path.is_dir():
        raise ConfigError(f"archive={path} is a folder; name a file")
    if not path.is_file():
        return
    with path.open("rb") as file:
        head = file.read(100)
    if head and not head.startswith(b"SQLite format 3"):
        raise ConfigError(f"{path} cannot be used as an archive (it is not a database)")
    # SQLite keeps `pragma user_version` there: https://www.sqlite.org/fileformat.html, section 1.3.
    _check_version(path, int.from_bytes(head[60:64], "big"))


def _check_version(path: Path | None, version: int) -> None:
    if version > VERSION:
        raise ConfigError(f"{path} was written by a newer nasjax (format {version}; this one reads {VERSION}): upgrade")


def digest(description: Any) -> str:
    """A short name for plain JSON, equal for equal content."""
    return sha256(json.dumps(description, sort_keys=True, default=str).encode()).hexdigest()[:32]


class Archive:
    """One archive file (or memory, with None), as one run sees it. Raises ConfigError for a file that is not an archive."""

    def __init__(self, path: Path | None, run: str):
        self._run = run
        self._path = path
        self._claimant = None if path is None else Claimant(path)
        try:
            self._base = sqlite3.connect(":memory:" if path is None else path, timeout=LOCKED)
            self._base.execute("pragma synchronous = full")
            version = self._base.execute("pragma user_version").fetchone()[0]
            _check_version(path, version)
            if version < VERSION:
                with self._writing():
                    if version == 3:
                        self._base.execute("alter table fits add column chosen text not null default ''")
                    for table in TABLES.split(";"):
                        self._base.execute(table)
                    self._base.execute(f"pragma user_version = {VERSION}")
        except sqlite3.Error as error:
            raise ConfigError(f"{path} cannot be used as an archive ({error})") from error

    def close(self) -> None:
        if self._claimant is not None:
            self._claimant.leave()
        self._base.close()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """One transaction. Raises OSError, with the file's name, where it cannot be written."""
        try:
            with self._base:
                self._base.execute("begin immediate")
                yield
        except sqlite3.OperationalError as error:
            reason = {sqlite3.SQLITE_FULL: (errno.ENOSPC, "disk full"),
                      sqlite3.SQLITE_BUSY: (errno.EBUSY, f"locked by another process for {LOCKED:g} s")}  # fmt: skip
            number, words = reason.get(error.sqlite_errorcode & 0xFF, (errno.EIO, str(error)))
            raise OSError(number, words, str(self._path)) from error

    # -- measurements -------------------------------------------------------------------------------------------------

    def find(self, context: str, archs: Population) -> list[dict[str, float] | None]:
        """What is known of each architecture, or None."""
        found = []
        for arch in np.asarray(archs):
            row = self._base.execute("select metrics from measurements where key = ?", (_key(context, arch),)).fetchone()
            found.append(None if row is None else json.loads(row[0]))
        return found

    def claim(self, context: str, archs: Population, most: int) -> tuple[list[int], list[int]]:
        """Claims the first `most` architectures that are neither measured nor being measured by another living process.

        Returns their rows, and the rows still to come: others' claims, and those beyond `most`.
        """
        mine: list[int] = []
        left: list[int] = []
        if self._claimant is not None:
            self._claimant.appear()
        with self._writing():
            taken = self._taken()
            for i, arch in enumerate(np.asarray(archs)):
                key = _key(context, arch)
                if len(mine) == most or key in taken:
                    left.append(i)
                elif not self._base.execute("select 1 from measurements where key = ?", (key,)).fetchone():
                    if self._claimant is not None:
                        self._base.execute("insert into claims values (?, ?)", (key, self._claimant.name))
                    mine.append(i)
        return mine, left

    def _taken(self) -> set[str]:
        """The keys that other living processes have claimed; all other claims are dropped."""
        claims = self._base.execute("select key, holder from claims").fetchall()
        gone = {
            name for _, name in claims if self._claimant and (name == self._claimant.name or not self._claimant.lives(name))
        }
        self._base.executemany("delete from claims where holder = ?", [(name,) for name in gone])
        return {key for key, name in claims if name not in gone}

    def describe(self, context: Mapping[str, Any]) -> str:
        """The digest of a context, whose description is kept beside the measurements."""
        name = digest(context)
        with self._writing():
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
        """Stores measurements made in `seconds` together, and that they were the run's evaluations at `positions`.

        Claims on them have then served their purpose.
        """
        with self._writing():
            for i, arch in enumerate(np.asarray(archs)):
                values = {name: float(column[i]) for name, column in metrics.items()}
                row = (_key(context, arch), context, json.dumps(arch.tolist()), json.dumps(values), seconds / len(archs))
                self._base.execute("insert or ignore into measurements values (?, ?, ?, ?, ?)", row)
                self._base.execute("delete from claims where key = ?", row[:1])
            self._log(context, archs, positions, step, "measured")

    def reused(self, context: str, archs: Population, positions: Sequence[int], step: int) -> None:
        """Stores that known measurements were the run's evaluations at `positions`."""
        with self._writing():
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
            with self._writing():
                self._base.execute("delete from evaluations where run = ? and position >= ?", (self._run, first))

    def fitted(self, step: int, errors: Sequence[tuple[str, int, float, float, float, str]]) -> None:
        """Keeps how good the predictors of a step were: objective, rows, mape, rmse, tau, chosen."""
        with self._writing():
            for row in errors:
                self._base.execute("insert or replace into fits values (?, ?, ?, ?, ?, ?, ?, ?)", (self._run, step, *row))

    def fits(self) -> list[tuple[int, str, int, float, float, float, str]]:
        """Step, objective, rows, mape, rmse, tau and chosen of every predictor that the run fitted."""
        columns = "step, objective, rows, mape, rmse, tau, chosen"
        return self._base.execute(f"select {columns} from fits where run = ? order by step, rowid", (self._run,)).fetchall()

    def save_reduction(self, options: Sequence[Sequence[int]]) -> None:
        """Keeps which options of every gene the run's search space was reduced to."""
        with self._writing():
            self._base.execute("insert or replace into reductions values (?, ?)", (self._run, json.dumps(options)))

    def reduction(self) -> tuple[tuple[int, ...], ...] | None:
        """What `save_reduction` kept."""
        row = self._base.execute("select options from reductions where run = ?", (self._run,)).fetchone()
        return row and tuple(map(tuple, json.loads(row[0])))

    def save_state(self, step: int, told: int, state: bytes) -> None:
        """Keeps the tactic's state after a step, and how many evaluations it was told of."""
        with self._writing():
            self._base.execute("insert or replace into states values (?, ?, ?, ?)", (self._run, step, told, state))

    def state(self) -> tuple[int, int, bytes] | None:
        """The last step whose state was kept, how many evaluations it knew, and the state."""
        return self._base.execute("select step, told, state from states where run = ?", (self._run,)).fetchone()


def _key(context: str, arch: np.ndarray) -> str:
    return f"{context}:{','.join(map(str, arch.tolist()))}"
