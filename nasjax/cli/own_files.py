"""A person's own configurations beside the package's: those that are never read, and further places that they name."""

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from nasjax.cli.options import group_names
from nasjax.errors import ConfigError

SHOWN = 5
"""The most files that a warning names."""


def shadowed(own: Sequence[Path]) -> list[Path]:
    """The files in a person's own folders that nasjax's, of the same names, take the place of; equal ones left out."""
    package = files("nasjax.conf")
    names = ["config.yaml", *(f"{group}/{name}.yaml" for group, found in group_names().items() for name in found)]
    pairs = [(folder / name, package.joinpath(name)) for folder in own for name in names if (folder / name).is_file()]
    return [file for file, other in pairs if file.read_bytes() != other.read_bytes()]


def shadow_warning(own: Sequence[Path]) -> str:
    """One line that names shadowed files, and what to do; empty without any."""
    found = shadowed(own)
    if not found:
        return ""
    here = Path.cwd()
    shown = [str(file.relative_to(here) if file.is_relative_to(here) else file) for file in found[:SHOWN]]
    more = [f"{len(found) - SHOWN} more"] * (len(found) > SHOWN)
    instead = sorted({"--config-name=NAME" if file.parent in own else f"{file.parent.name}=NAME" for file in found})
    return (
        f"{', '.join([*shown, *more])} {'is' if len(found) == 1 else 'are'} not read, as nasjax has "
        f"{'a file' if len(found) == 1 else 'files'} of that name: choose another, and say {' or '.join(instead)}"
    )


def places_of_first_file(name: str, own: Sequence[Path]) -> list[str]:
    """The further places, as Hydra writes them (`file://…`, `pkg://…`), that `hydra: searchpath:` of the first file names.

    Raises ConfigError where it is not a list of texts, or where they cannot be resolved.
    """
    file = next((file for folder in own if (file := folder / f"{name}.yaml").is_file()), None)
    text = file.read_bytes().decode("utf-8", "replace") if file is not None else ""
    if "searchpath" not in text:
        return []
    import yaml
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        content: Any = OmegaConf.create(text)
        places = OmegaConf.select(content, "hydra.searchpath")
        places = OmegaConf.to_container(places, resolve=True) if OmegaConf.is_config(places) else places
    except yaml.YAMLError:
        return []  # Composing says so.
    except OmegaConfBaseException as error:
        raise ConfigError(f"{name}.yaml: hydra.searchpath: {str(error).splitlines()[0]}") from None
    if places is None:
        return []
    if not isinstance(places, list) or not all(isinstance(place, str) for place in places):
        raise ConfigError(f"{name}.yaml: hydra.searchpath must be a list of folders, as in [file:///FOLDER], not {places!r}")
    return places
