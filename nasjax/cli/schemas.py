"""Schemas for Hydra, made from the tables of names: they refuse unknown settings and values of a wrong type.

The tables import JAX, which takes seconds. Their columns are therefore kept in the cache folder, so that mistakes on the
command line are reported at once.
"""

import pickle
import sys
from collections.abc import Mapping
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass, field, make_dataclass
from functools import cache, partial
from hashlib import sha256
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore

from nasjax.cli.failures import import_jax
from nasjax.host import cache_folder, replace_file


@dataclass
class Schema:
    """Every setting and its default; the fields of a group come from its table."""

    supernet: Any = None
    task: Any = None
    tactic: Any = None
    algorithm: Any = None
    predictor: Any = None
    evaluator: Any = None
    trainer: Any = None
    hardware: Any = None
    tracker: Any = None
    objectives: list[str] = field(default_factory=lambda: ["accuracy_top1", "macs"])
    constraints: list[str] = field(default_factory=list)
    references: dict[str, float] = field(default_factory=dict)
    evaluations: int = 128
    seed: int = 0
    seeds: int | None = None
    run: str | None = None
    archive: str | None = None
    warm_start: str | None = None
    proxies: list[str] = field(default_factory=list)
    subnet: str | None = None
    largest: str | None = None
    teacher: str | None = None
    space_reduction: Any = None
    minutes: float | None = None
    tactic_device: str | None = None
    distributed: list[str] | None = None


@cache
def register() -> None:
    """Stores a schema for every name, where conf/ refers to it: group `tactic`, name `concurrent_schema`, and so on."""
    store = ConfigStore.instance()
    store.store(name="schema", node=Schema)
    for (group, name), (title, columns) in kept_columns().items():
        made: list[Any] = [(key, hint, field(default_factory=partial(deepcopy, default))) for key, hint, default in columns]
        store.store(group=group, name=f"{name}_schema", node=make_dataclass(title, [("name", str, name), *made]))


def kept_columns() -> Mapping[tuple[str, str], tuple[str, list[Any]]]:
    """`tables.columns`, from the cache folder where nothing of nasjax has changed since."""
    file, source = kept_file(), _source()
    with suppress(Exception):  # Missing or damaged: it is made anew.
        kept = pickle.loads(file.read_bytes())
        if kept["source"] == source:
            return kept["columns"]
    import_jax()
    from nasjax.cli.tables import columns

    found = columns()
    with suppress(OSError):  # A folder that cannot be written: the next command takes as long.
        file.parent.mkdir(parents=True, exist_ok=True)
        replace_file(file, pickle.dumps({"source": source, "columns": found}))
        file.with_name("schemas.pickle").unlink(missing_ok=True)  # Of an earlier nasjax, for all installations.
    return found


def kept_file() -> Path:
    """The file of this installation: others, of the same home, have their own."""
    installation = f"{sys.version} {Path(__file__).resolve()}"
    return cache_folder() / f"schemas-{sha256(installation.encode()).hexdigest()[:12]}.pickle"


def _source() -> list[Any]:
    """What tells this nasjax from another, or a changed one: Python, and the size and time of every source file."""
    paths = sorted(Path(__file__).parent.parent.rglob("*.py"))
    return [sys.version, *((str(path), (stat := path.stat()).st_size, stat.st_mtime_ns) for path in paths)]
