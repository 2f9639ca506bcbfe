"""`nasjax list`: every name that a setting may have, with a line on each; a name's settings, with defaults and meanings.

Names and plain settings are shown without JAX, which takes seconds to import.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources.abc import Traversable

from nasjax.cli.failures import import_jax
from nasjax.cli.meanings import PLAIN, described
from nasjax.cli.options import COMMANDS, GLOBAL_GROUPS, Arguments, default_names, group_files, own_folders, search_path
from nasjax.errors import ConfigError
from nasjax.registry import settings

Row = tuple[str, str]
"""What is said, and what it means."""


def list_names(arguments: Arguments) -> int:
    """Runs `nasjax list`: of all names or, of each KEY or KEY=NAME that is given, its names or settings."""
    given = arguments.options.get("config-dir", "")
    folders = own_folders(given)
    files = group_files(folders)
    if arguments.paths:
        for key in arguments.paths:
            _print(_rows_of(key, files, list(search_path(folders)) if given else []))
        return 0
    _print([*(row for group in sorted(files) for row in _names(group, files)), *_objectives()])
    return 0


def _rows_of(key: str, files: Mapping[str, Mapping[str, Traversable]], of_hydra: Sequence[str]) -> Sequence[Row]:
    """Rows on one setting, group or name. `of_hydra` says where its file is. Raises ConfigError for a key that is none."""
    group, equals, name = key.partition("=")
    if key == "objectives":
        return _objectives()
    if key in PLAIN:
        return [(f"{key}={PLAIN[key][0]}", PLAIN[key][1])]
    if group not in files:
        raise ConfigError(f"{key} is not a setting; allowed: {', '.join(sorted([*files, *PLAIN]))}")
    if not equals:
        return _names(group, files)
    if name not in files[group]:
        raise ConfigError(f"unknown {group} {name!r}; allowed: {', '.join(sorted(files[group]))}")
    if group in GLOBAL_GROUPS:
        return [(line, "") for line in _text(files[group][name]).splitlines()]
    command = next(command.name for command in COMMANDS.values() if group in command.settings)
    from nasjax.cli.compose import configuration

    composed = configuration(command, [*of_hydra, f"{group}={name}"])[group]
    import_jax()
    from nasjax.cli.tables import GROUPS

    meanings = described(settings(group, GROUPS[group], composed["name"]))
    return [(f"{group}.{key}={_written(value)}", meanings[key]) for key, value in composed.items() if key != "name"]


def _names(group: str, files: Mapping[str, Mapping[str, Traversable]]) -> Sequence[Row]:
    """The names of a group with the first comment line of their files; which is the default."""
    rows = []
    default = default_names().get(group)
    for name, file in sorted(files[group].items()):
        lines = _text(file).splitlines()
        comments = [line[2:] for line in lines if line.startswith("# ") and not line.startswith("# @")]
        rows.append((f"{group}={name}", " ".join(["(default)"] * (name == default) + comments[:1])))
    return rows


def _text(file: Traversable) -> str:
    """A file's text; damaged characters, of a person's own, are replaced."""
    return file.read_bytes().decode("utf-8", "replace")


def _objectives() -> Sequence[Row]:
    import_jax()
    from nasjax.objectives import COST_OBJECTIVES, TIMINGS
    from nasjax.tasks import OBJECTIVES

    objectives = (OBJECTIVES | COST_OBJECTIVES | TIMINGS).values()
    return [(f"objectives=[{objective.direction}:{objective.name}]", objective.about) for objective in objectives]


def _written(value: object) -> str:
    """A value as it is written on the command line."""
    if isinstance(value, list):
        return f"[{','.join(map(_written, value))}]"
    if isinstance(value, str) and value:
        return value
    return json.dumps(value)


def _print(rows: Iterable[Row]) -> None:
    """Plain lines: a name that is cut or wrapped cannot be copied."""
    rows = list(rows)
    width = max((len(head) for head, _ in rows), default=0)
    for head, about in rows:
        print(f"{head:<{width}}  {about}".rstrip())
