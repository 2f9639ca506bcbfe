"""Hydra's own settings: those that act in nasjax, and what to do in the place of the others."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hydra._internal.config_repository import ConfigRepository
from hydra._internal.config_search_path_impl import ConfigSearchPathImpl
from hydra.core.override_parser.types import Override
from omegaconf import OmegaConf

from nasjax.errors import ConfigError

ACTING = ("hydra.sweep.dir", "hydra.searchpath", "hydra.launcher", "hydra.job.config_name", "hydra.job.env_set")
"""Settings, and groups of settings, that commands obey: the last one is set while a job of a sweep runs."""

ACTING_ONLY = "of Hydra's settings only hydra.sweep.dir, hydra.searchpath, hydra.launcher and hydra.job.env_set act here"

FOLDERS = "run=FOLDER names the folder of a run, and hydra.sweep.dir=FOLDER that of a sweep"

INSTEAD: Mapping[str, str] = {
    "hydra.run": FOLDERS,
    "hydra.sweep": FOLDERS,
    "hydra.output_subdir": "config.yaml in the folder of a run has its settings",
    "hydra.job.chdir": "commands stay in the folder where they are started",
    "hydra.job.name": "hydra.launcher.name=NAME is what a queue calls the jobs, where it has names",
    "hydra.verbose": "--quiet shows less",
    "hydra.job_logging": "--quiet shows less",
    "hydra.hydra_logging": "--quiet shows less",
    "hydra.sweeper": "-m runs every combination of the values on the command line, as in seed=1,2",
    "hydra.mode": "-m runs a sweep",
    "hydra.callbacks": "tracker=NAME shows a run while it runs",
}
"""What to do in the place of settings that have no meaning here."""


def check_overrides(overrides: Sequence[Override]) -> None:
    """Raises ConfigError for words that set what has no meaning here."""
    for override in overrides:
        if override.is_hydra_override() and not _acts(key := override.key_or_group):
            raise ConfigError(f"{key} cannot be set: {_instead(key)}")


def check_files(first: str, hydra: Any) -> None:
    """Raises ConfigError where a file that was composed sets, in a block `hydra:` or its defaults, what has no meaning here.

    `first` is the file that all begins with, `hydra` the composed settings of Hydra, which know all sources and names.
    """
    path = ConfigSearchPathImpl()
    for source in hydra.runtime.config_sources:
        path.append(source.provider, f"{source.schema}://{source.path}")
    repository = ConfigRepository(path)
    chosen = {group: name for group, name in hydra.runtime.choices.items() if isinstance(name, str)}
    paths = {f"{group}/{name}": f"{group}={name}" for group, name in chosen.items() if not group.startswith("hydra/")}
    for path_of_file, said in ({first: f"{first}.yaml"} | paths).items():
        found = repository.load_config(config_path=path_of_file)
        for key in _keys_of_hydra(found) if found is not None else ():
            if not _acts(key):
                raise ConfigError(f"{said} sets {key}, which has no meaning here: {_instead(key)}")


def _keys_of_hydra(found: Any) -> Iterator[str]:
    """The settings of Hydra's in a loaded file: those of its block, and the groups that its defaults override."""
    for default in found.defaults_list or ():
        group = str(getattr(default, "group", None) or "").lstrip("/")
        if group.startswith("hydra/"):
            yield group
    block = OmegaConf.to_container(found.config, resolve=False)
    yield from _leaves("hydra", block.get("hydra") if isinstance(block, dict) else None)


def _leaves(key: str, value: Any) -> Iterator[str]:
    """The names of all settings below `key`; those of an acting group are one."""
    if isinstance(value, dict) and not _acts(key):
        for name, inner in value.items():
            yield from _leaves(f"{key}.{name}", inner)
    elif value is not None or _acts(key):
        yield key


def _acts(key: str) -> bool:
    return any(f"{key.replace('/', '.')}.".startswith(f"{acting}.") for acting in ACTING)


def _instead(key: str) -> str:
    plain = f"{key.replace('/', '.')}."
    known = [text for start, text in INSTEAD.items() if plain.startswith(f"{start}.")]
    return known[0] if known else ACTING_ONLY
