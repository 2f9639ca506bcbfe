"""The files that a run read: recorded with absolute paths and digests, and found again after a project was moved."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nasjax.errors import ConfigError, naming_damage
from nasjax.host import is_database, parse_json, read_text

READ = ("supernet.table", "supernet.checkpoint", "task.path", "task.vocabulary")
"""Settings that name what is measured; a run's context holds the content of each."""

INPUTS = (*READ, "hardware.file", "hardware.source", "warm_start", "archive", "subnet", "largest", "teacher")
"""All settings that name a file or folder by its path."""

NO_PATHS = ("", "shipped", None)
"""Values of these settings that name no file; `shipped`: weights inside the package."""


def absolute_inputs(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The same settings with absolute paths of their files: they mean the same in every working directory."""
    return _with_inputs(settings, {key: os.path.abspath(path) for key, path in _inputs(settings).items()})


def describe_inputs(settings: Mapping[str, Any], run: Path) -> dict[str, dict[str, str | None]]:
    """For every file in the settings of a run: its path from the run's folder, and its digest.

    None stands for the digest of what changes while it is used (archives, stored timings), and of folders of images.
    """
    return {
        key: {
            "relative": os.path.relpath(path, run.absolute()),
            "sha256": None if key == "hardware.file" and settings["hardware"]["name"] != "csv" else _digest(Path(path)),
        }
        for key, path in _inputs(settings).items()
    }


def same_input(key: str, run: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether two files of a setting are the same by content: their `path`, and what `describe_inputs` says of them.

    Where content is not known, they are where they have the same place, or the earlier one is no longer there. What is
    measured (`READ`) is compared by the run's context.
    """
    if key in READ:
        return True
    if before.get("sha256") and now.get("sha256"):
        return before["sha256"] == now["sha256"]
    places = [os.path.abspath(before["path"]), os.path.abspath(run / before.get("relative", before["path"]))]
    return os.path.abspath(now["path"]) in places or not os.path.exists(before["path"])


def find_inputs(settings: Mapping[str, Any], described: Mapping[str, Mapping[str, Any]], run: Path) -> dict[str, Any]:
    """The settings of a run with the present paths of its files.

    Where one is no longer at its absolute path, or is another file by now, it is looked for at the same path from the run's
    folder. What is found at neither keeps its path.
    """
    found = {}
    for key, path in _inputs(settings).items():
        moved = Path(os.path.abspath(run / str(described.get(key, {}).get("relative", path))))
        digest = described.get(key, {}).get("sha256")
        if moved.exists() and moved != Path(path):
            is_there = Path(path).exists() and (digest is None or _digest(Path(path)) == digest)
            found[key] = path if is_there or _digest(moved) != digest else str(moved)
    return _with_inputs(settings, found)


def override_inputs(run: Path, settings: Mapping[str, Any], words: Sequence[str]) -> dict[str, Any]:
    """The settings of a run with new places of its files, words KEY=PATH.

    Raises ConfigError for other settings, and for a file that is not where it was.
    """
    known = _inputs(settings)
    places = {}
    for word in words:
        key, _, value = word.partition("=")
        if key not in known:
            raise ConfigError(f"run={run} has all settings: leave {word} out; only files that were moved can be named: "
                              f"{', '.join(f'{name}=PATH' for name in known) or 'it read none'}")  # fmt: skip
        places[key] = value.strip("'\"")
    changed = _with_inputs(settings, places)
    for key, path in _inputs(changed).items():
        if key in READ and not os.path.exists(path):
            raise ConfigError(f"run={run} was made with {key}={path}, which is not there: say {key}=PATH, its new place")
    return changed


def changed_input(before: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """The first setting of what is measured whose file has another digest than it had then; None where none has."""
    digests = {key: (before.get(key, {}).get("sha256"), now.get(key, {}).get("sha256")) for key in READ}
    return next((key for key, (old, new) in digests.items() if old and new and old != new), None)


def _inputs(settings: Mapping[str, Any]) -> dict[str, str]:
    """The paths in settings, by the dotted names of these."""
    paths = {}
    for key in INPUTS:
        group, _, name = key.partition(".")
        value = settings.get(group)
        value = value.get(name) if name and isinstance(value, Mapping) else None if name else value
        if isinstance(value, str | Path) and value not in NO_PATHS:
            paths[key] = str(value)
    return paths


def _with_inputs(settings: Mapping[str, Any], paths: Mapping[str, str]) -> dict[str, Any]:
    changed = {key: dict(value) if isinstance(value, Mapping) else value for key, value in settings.items()}
    for key, path in paths.items():
        group, _, name = key.partition(".")
        if name:
            changed[group][name] = path
        else:
            changed[group] = path
    return changed


def _digest(path: Path) -> str | None:
    """The digest of a file, or of the evaluations of a run folder; None for archives, other folders, and what is missing."""
    file = path / "evaluations.csv" if path.is_dir() else path
    if not file.is_file() or is_database(file):
        return None
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def read_described(run: Path) -> dict[str, dict[str, Any]]:
    """What `run.json` says of a run's files; nothing where it is missing, or of an earlier version of nasjax."""
    file = run / "run.json"
    if not file.exists():
        return {}
    with naming_damage(file, "name another folder, or remove it"):
        described = parse_json(read_text(file)).get("files", {})
        return {key: dict(described[key]) for key in described if key in INPUTS}
