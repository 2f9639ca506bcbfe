"""Completion of a command line in the shell; it imports neither JAX nor Hydra, so that it is quick."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from nasjax.cli.options import Command

PATHS = ("run", "subnet", "largest", "teacher", "archive", "path", "table", "checkpoint")
"""Settings, or the last parts of their names, whose values are paths."""


def complete_word(command: Command, word: str, groups: Mapping[str, Sequence[str]]) -> list[str]:
    """Completions of `word`: the command's keys; after `=` the names of a group (after commas too), or paths."""
    key, equals, value = word.partition("=")
    if not equals:
        keys = [f"{name}=" for name in command.keys if name.startswith(key)]
        return keys + (complete_path(word) if command.paths is not None and command.paths.among_words else [])
    if key in groups:
        before, comma, last = value.rpartition(",")
        return [f"{key}={before}{comma}{name}" for name in groups[key] if name.startswith(last)]
    path_options = [option.key for option in command.options if option.is_path]
    if key in path_options or key.rpartition(".")[2] in PATHS:
        return [f"{key}={path}" for path in complete_path(value)]
    return []


def complete_path(start: str) -> list[str]:
    """Files, and folders with a `/` at their end, whose paths begin with `start`; hidden ones where it names a dot."""
    folder, _, name = start.rpartition("/")
    root = Path(folder or ("/" if start.startswith("/") else "."))
    inside = sorted(root.iterdir()) if root.is_dir() else []
    found = [path for path in inside if path.name.startswith(name) and (name or not path.name.startswith("."))]
    return [f"{start[: len(start) - len(name)]}{path.name}{'/' if path.is_dir() else ''}" for path in found]
