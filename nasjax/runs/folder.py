"""Run folders: made exclusively, locked while in use, refused where they hold another search, and what is written there."""

from nasjax.errors import ConfigError
import csv
import fcntl
import io
import json
import os
import re
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from nasjax.host import write_text

GROWING = "evaluations"
"""The one setting that may be larger when a run is taken up again."""


@dataclass(frozen=True)
class RunFolder:
    """A folder that this process holds (None: nothing is written), and the run's name in an archive that runs may share."""

    path: Path | None
    id: str


@contextmanager
def run_folder(path: Path, settings: Mapping[str, Any], context: str) -> Iterator[RunFolder]:
    """The folder `path` for a search with these settings, made or taken up again; held until the block ends.

    Raises ConfigError for a folder that is in use, holds something else, or a run with other settings (the first is named)
    or of another `context` (a digest of weights and data).
    """
    if path.exists() and not (path / "run.json").is_file() and not _only_begun(path):
        raise ConfigError(f"run={path} exists and is not a run folder; name another")
    path.mkdir(parents=True, exist_ok=True)
    with _lock(path):
        _remove_partial(path)
        if (path / "run.json").is_file():
            identity = json.loads((path / "run.json").read_text())
            if (path / "config.yaml").is_file():  # Else it was killed before anything was measured.
                _same_settings(path, settings)
            if identity["context"] != context:
                raise ConfigError(
                    f"run={path} was measured with other weights, data or settings; name another run, or remove it"
                )
        else:
            identity = {"id": uuid.uuid4().hex, "context": context}
        write_text(path / "run.json", json.dumps(identity))
        write_text(path / "config.yaml", yaml.safe_dump(plain(settings), sort_keys=False))
        yield RunFolder(path, identity["id"])


def check_seed(seed: int) -> None:
    """Raises ConfigError for a seed that random keys cannot be made of."""
    if not 0 <= seed < 2**32:
        raise ConfigError(f"seed must be from 0 to {2**32 - 1}, not {seed}")


def new_path(name: str) -> Path:
    """`runs/<time with microseconds>_<name>`."""
    now = time.time()
    moment = time.strftime("%Y-%m-%d_%H-%M-%S", time.localtime(now))
    return Path("runs") / f"{moment}-{int(now % 1 * 1e6):06d}_{name}"


def read_settings(path: Path) -> dict[str, Any]:
    """What `config.yaml` of a run folder says. Raises ConfigError where there is none."""
    file = path / "config.yaml"
    if not file.is_file():
        raise ConfigError(f"{path} is not a run folder: it has no config.yaml")
    return yaml.safe_load(file.read_text())


def _only_begun(path: Path) -> bool:
    """Whether a folder holds no more than what a run leaves that was killed at its very start."""
    return path.is_dir() and all(inside.name.startswith((".lock", ".run.json.")) for inside in path.iterdir())


def _remove_partial(path: Path) -> None:
    """Removes what writes of a killed process have left, see `replace_file`."""
    for inside in path.iterdir():
        if re.fullmatch(r"\..+\.\d+", inside.name):
            inside.unlink(missing_ok=True)


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    with (path / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(f"run={path} is in use by another process; wait for it, or name another") from None
        yield


def _same_settings(path: Path, settings: Mapping[str, Any]) -> None:
    before, now = _flat(read_settings(path)), _flat(plain(settings))
    if now[GROWING] < before[GROWING]:
        raise ConfigError(f"run={path} was started with {GROWING}={before[GROWING]}; {now[GROWING]} is less")
    for key in [*before, *now]:
        if key != GROWING and before.get(key) != now.get(key):
            raise ConfigError(
                f"run={path} was started with {key}={before.get(key)}, not {now.get(key)}; say it again, or name another run"
            )


def _flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(tree, Mapping):
        return {prefix: tree}
    rows: dict[str, Any] = {}
    for key, value in tree.items():
        rows |= _flat(value, f"{prefix}.{key}" if prefix else str(key))
    return rows


def plain(value: Any) -> Any:
    """Only what YAML and JSON know: lists for tuples, dicts for mappings, words for paths."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def write_table(path: Path, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Writes a CSV whole or not at all; floats with all their digits, None as an empty cell."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    write_text(path, text.getvalue())
