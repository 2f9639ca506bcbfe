"""Run folders: made exclusively, locked while in use, resumed with the same settings, refused otherwise."""

import csv
import fcntl
import io
import json
import re
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import Any

import yaml

from nasjax.errors import ConfigError, naming_damage
from nasjax.host import MOST_FOLDERS, parse_json, read_text, regular_file, write_text
from nasjax.runs.inputs import (
    absolute_inputs,
    changed_input,
    describe_inputs,
    find_inputs,
    read_described,
    same_input,
)

SETTINGS: Mapping[str, type | tuple[type, ...]] = {
    "objectives": list,
    "constraints": list,
    "references": dict,
    "evaluations": int,
    "seed": int,
    "tactic": dict,
    "algorithm": dict,
    "predictor": dict,
    "supernet": dict,
    "task": (dict, type(None)),
    "evaluator": (dict, type(None)),
    "archive": (str, type(None)),
    "warm_start": (str, type(None)),
    "space_reduction": (dict, type(None)),
    "proxies": list,
}
"""The types of settings in `config.yaml`."""

NEEDED = ("seed", "tactic", "supernet", "task", "evaluator", "archive")
"""Those without which a run can be neither compared nor extracted from."""

DAMAGED_CONFIG = "restore it, or search again with another run="
"""What to do about a damaged `config.yaml`."""

STARTED = "training.json"
"""The file of settings, and of digests of weights and examples, that a training began with; removed when it has ended."""

TRAINING_RECORD = "record.json"
"""The file of a training's settings and scores, beside the weights."""

SEEDS_CSV, SEEDS_JSON = "seeds.csv", "seeds.json"
"""The files of searches with many seeds: an evaluation a row, and how far they are."""

LOCK_TRIALS = 10
"""How often a folder's lock is tried, a fiftieth of a second apart, before the folder counts as in use."""


@dataclass(frozen=True)
class RunFolder:
    """A run folder that this process has locked (`path` is None: nothing is written), and the run's id in an archive."""

    path: Path | None
    id: str


@contextmanager
def run_folder(path: Path, settings: Mapping[str, Any], context: str, grows: str = "evaluations") -> Iterator[RunFolder]:
    """Makes or resumes the run folder `path` of a search with these settings; it is locked until the block ends.

    `context` is the digest of weights, data and evaluation settings. `grows` is the one setting that may be larger when a
    run is resumed. Raises ConfigError for a folder that is in use, that is
    no run folder, or whose run has other settings (the first that differs is named), another context, or was written by a
    version of nasjax with other settings.
    """
    if len(path.parts) > MOST_FOLDERS:
        raise ConfigError(f"run= has more than {MOST_FOLDERS} folders in one another")
    if path.exists() and not (path / "run.json").is_file() and not is_unstarted(path):
        raise ConfigError(f"run={path} exists and is not a run folder; name another")
    settings = absolute_inputs(settings)
    files = describe_inputs(settings, path)
    path.mkdir(parents=True, exist_ok=True)
    with locked(path):
        _remove_partial_files(path)
        if (path / "run.json").is_file():
            identity = read_identity(path)
            if (path / "config.yaml").is_file():  # Missing where the run was killed before it measured anything.
                _check_same_settings(path, settings, files, grows)
            if identity["context"] != context and (key := changed_input(read_described(path), files)):
                raise ConfigError(
                    f"run={path} was started with another content of {key}; restore that file, or name another folder"
                )
            if identity["context"] != context:
                raise ConfigError(
                    f"run={path} was measured with other weights, data or settings, or by another version of nasjax; "
                    "name another folder, or remove it"
                )
        else:
            identity = {"id": uuid.uuid4().hex, "context": context}
        write_text(path / "run.json", json.dumps(identity | {"files": files}))
        write_text(path / "config.yaml", yaml.safe_dump(plain_data(settings), sort_keys=False))
        yield RunFolder(path, identity["id"])


def check_seed(seed: int) -> None:
    """Raises ConfigError unless 0 <= seed < 2**32, as random keys need."""
    if not 0 <= seed < 2**32:
        raise ConfigError(f"seed must be from 0 to {2**32 - 1}, not {seed}")


def check_seeds(first: int, number: int | None) -> None:
    """Raises ConfigError unless there is at least one seed, and all are as `check_seed` wants them; None: one, as ever."""
    check_seed(first)
    if number is not None and number < 1:
        raise ConfigError(f"seeds must be at least 1, not {number}: how many searches, each with its own seed")
    if number is not None:
        check_seed(first + number - 1)


def check_budget(evaluations: int, minutes: float | None) -> None:
    """Raises ConfigError unless something may be measured, and the time is none or a number from 0 on."""
    if minutes is not None and not minutes >= 0:
        raise ConfigError(f"minutes must be at least 0, not {minutes}")
    if not isinstance(evaluations, Integral) or evaluations < 1:
        raise ConfigError(f"evaluations must be a whole number of at least 1, not {evaluations!r}")


def new_path(name: str) -> Path:
    """`runs/<time with microseconds>_<name>`."""
    now = time.time()
    moment = time.strftime("%Y-%m-%d_%H-%M-%S", time.localtime(now))
    return Path("runs") / f"{moment}-{int(now % 1 * 1e6):06d}_{name}"


def read_settings(path: Path) -> dict[str, Any]:
    """The settings of a run, with the present paths of its files where it was moved together with these.

    Raises ConfigError where `config.yaml` is missing or damaged, and for searches with many seeds.
    """
    settings = _read_config(path)
    if "seeds" in settings:
        raise ConfigError(
            f"{path} has searches with many seeds, to be compared only: search without seeds= for a run of one"
        )
    return find_inputs(settings, read_described(path), path)


def _read_config(path: Path) -> dict[str, Any]:
    """The content of `config.yaml`. Raises ConfigError where it is missing or damaged."""
    file = path / "config.yaml"
    if not file.exists():
        raise ConfigError(f"{path} is not a run folder: it has no config.yaml")
    with naming_damage(file, DAMAGED_CONFIG):
        return parse_settings(read_text(file))


def parse_settings(text: str) -> dict[str, Any]:
    """The settings in the text of a `config.yaml`. Raises ValueError for a text that no search has written."""
    settings = _parse_settings(text)
    if missing := [key for key in NEEDED if key not in settings]:
        raise ValueError(f"it lacks {missing[0]!r}")
    return settings


def _parse_settings(text: str) -> dict[str, Any]:
    """The same for any version of nasjax: those of SETTINGS that are there have their types."""
    try:
        settings = yaml.load(text, _SettingsLoader)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(settings, dict):
        raise ValueError("it has no settings")
    for key in filter(settings.__contains__, SETTINGS):
        value = settings[key]
        if not isinstance(value, SETTINGS[key]) or isinstance(value, bool):
            raise ValueError(f"{key} is {value!r:.60}")
        if isinstance(value, dict) and key != "references" and not isinstance(value.get("name"), str):
            raise ValueError(f"{key} has no name")
    return settings


class _SettingsLoader(yaml.SafeLoader):
    """Refuses aliases, which no run folder has: a few lines of them may stand for more data than memory holds."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError(f"an alias in line {self.peek_event().start_mark.line + 1}")
        return super().compose_node(parent, index)


def read_identity(path: Path) -> dict[str, str]:
    """The run's id in its archive, and the context of its measurements, from `run.json`.

    Raises ConfigError where it is missing or damaged.
    """
    file = path / "run.json"
    if not file.exists():
        raise ConfigError(f"{path} is not the folder of a search: it has no run.json")
    with naming_damage(file, "it may be of another version of nasjax; name another folder, or remove it"):
        identity = parse_json(read_text(file))
        if not all(isinstance(identity[key], str) for key in ("id", "context")):
            raise ValueError("'id' and 'context' are not text")
        return {"id": identity["id"], "context": identity["context"]}


def is_unstarted(path: Path) -> bool:
    """Whether a folder holds only what a run leaves that was killed at its very start."""
    first = (".lock", ".run.json.", ".training.json.")
    return path.is_dir() and all(inside.name.startswith(first) for inside in path.iterdir())


def _remove_partial_files(path: Path) -> None:
    """Removes the temporary files of a killed process, see `nasjax.host.replace_file`."""
    for inside in path.iterdir():
        if re.fullmatch(r"\..+\.\d+", inside.name):
            inside.unlink(missing_ok=True)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """A folder that no other process may use meanwhile. Raises ConfigError where one does."""
    lock = path / ".lock"
    if lock.exists():
        regular_file(f"run={path}: its {lock.name}", lock)  # Opening a pipe would wait for ever.
    with lock.open("w", encoding="utf-8") as file:
        for tried in range(LOCK_TRIALS):
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if tried == LOCK_TRIALS - 1:
                    raise ConfigError(f"run={path} is in use by another process; wait for it, or name another") from None
                time.sleep(0.02)  # `in_use` holds the lock for an instant.
        yield


def in_use(path: Path) -> bool:
    """Whether a process holds the lock of a folder, see `locked`; writes nothing."""
    lock = path / ".lock"
    if not lock.is_file():
        return False
    try:
        with lock.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # Removed meanwhile, or it may not be read.
        return False
    return False


def _check_same_settings(
    path: Path, settings: Mapping[str, Any], files: Mapping[str, Mapping[str, Any]], grows: str
) -> None:
    """Raises ConfigError, which names the first setting that differs from those that the run was started with.

    Files are compared by content; `files` describes the present ones.
    """
    file = path / "config.yaml"
    with naming_damage(file, DAMAGED_CONFIG):
        stored = _parse_settings(read_text(file))
    before, now = flatten_settings(stored), flatten_settings(plain_data(settings))
    described = read_described(path)
    for key in files:
        if isinstance(before.get(key), str):
            old, new = {"path": before[key], **described.get(key, {})}, {"path": now[key], **files[key]}
            if same_input(key, path, old, new):
                before[key] = now[key]
            elif before[key] == now[key]:
                raise ConfigError(
                    f"run={path} was started with another content of {key}={now[key]}; restore it, or name another folder"
                )
    if isinstance(before.get(grows), int) and now[grows] < before[grows]:
        raise ConfigError(f"run={path} was started with {grows}={before[grows]}; {now[grows]} is less")
    for key in [*before, *now]:
        if (key == grows and key in before) or before.get(key) == now.get(key):
            continue
        if _is_of_another_version(key, before, now):
            difference = f"it has {key}={before[key]}, which is not a setting here" if key in before else f"it has no {key}"
            raise ConfigError(
                f"run={path} was written by another version of nasjax ({difference}); name another folder, or remove it"
            )
        raise ConfigError(
            f"run={path} was started with {key}={before.get(key)}, not {now.get(key)}; "
            "repeat that setting to resume the run, or name another folder"
        )


def _is_of_another_version(key: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether only one side has a setting of a group (tactic, evaluator, task…) that has the same name on both."""
    group, _, setting = key.partition(".")
    name = f"{group}.name"
    same_name = name in before and name in now and before[name] == now[name]
    return same_name and "." not in setting and (key in before) != (key in now)


def flatten_settings(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by their dotted names: {"tactic": {"name": "full"}} becomes {"tactic.name": "full"}."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{prefix}.{key}" if prefix else str(key)
        flat |= flatten_settings(value, name) if isinstance(value, Mapping) else {name: value}
    return flat


def plain_data(value: Any) -> Any:
    """The same data in types that YAML and JSON have: mappings as dicts, tuples as lists, paths as text."""
    if isinstance(value, Mapping):
        return {str(key): plain_data(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain_data(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def write_table(path: Path, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Writes a CSV atomically, see `table_text`."""
    write_text(path, table_text(header, rows))


def table_text(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table as CSV; floats keep all their digits, None is an empty cell."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()
