"""Completion of a command line in the shell; it imports neither JAX nor Hydra, so that a TAB is answered at once."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

OWN = {
    "extract": ("run", "network", "select", "arch", "archs", "out", "export", "batch", "subnet"),
    "evaluate": ("archs", "out", "run", "split"),
    "import": ("out",),
    "import-results": ("out",),
}
"""Keys that are a command's own, beside the settings it reads."""

WITH_FILES = ("import-results",)
"""Commands that take files among their settings."""

FILES = ("run", "subnet", "archive", "archs", "out", "path", "table", "checkpoint")
"""Keys, or their last parts, whose values are paths."""


def completions(command: str, word: str, keys: Sequence[str], groups: Mapping[str, Sequence[str]]) -> list[str]:
    """What may stand for `word`: keys that a command reads, after `=` the names of a group (after commas too), or paths."""
    key, equals, value = word.partition("=")
    if not equals:
        found = [f"{name}=" for name in dict.fromkeys((*keys, *OWN.get(command, ()))) if name.startswith(key)]
        return found + (list(paths(word)) if command in WITH_FILES else [])
    if key in groups:
        before, comma, last = value.rpartition(",")
        return [f"{key}={before}{comma}{name}" for name in groups[key] if name.startswith(last)]
    if key.rpartition(".")[2] in FILES:
        return [f"{key}={path}" for path in paths(value)]
    return []


def paths(start: str) -> Iterator[str]:
    """Files and folders (with `/`) that begin like this."""
    folder, _, name = start.rpartition("/")
    root = Path(folder or ("/" if start.startswith("/") else "."))
    for path in sorted(root.iterdir()) if root.is_dir() else ():
        if path.name.startswith(name) and (name or not path.name.startswith(".")):
            yield f"{start[: len(start) - len(name)]}{path.name}{'/' if path.is_dir() else ''}"
