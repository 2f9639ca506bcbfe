"""Settings on the command line (words KEY=VALUE) composed by Hydra into a configuration; mistakes are one line each."""

import re
from collections.abc import Sequence
from typing import Any

from hydra import compose, initialize_config_module
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException, OverrideParseException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from nasjax.cli.options import COMMANDS
from nasjax.cli.schemas import register
from nasjax.errors import ConfigError

NAMED_KEYS = ("references.", "supernet.genes.", "supernet.needs.")
"""How settings begin that end with the name of a metric or gene."""

FREE_KEYS = (*NAMED_KEYS, "supernet.arguments.", "task.arguments.")
"""How settings begin whose last part a person may choose freely."""


def configuration(command: str, words: Sequence[str]) -> dict[str, Any]:
    """The composed configuration as plain data, with the settings that the command reads.

    Raises ConfigError for words that cannot be read, unknown names and settings, and values of a wrong type.
    """
    register()
    words = hydra_overrides(words)
    for override in parse_overrides(words):
        if override.is_sweep_override():
            raise ConfigError(f"{override.input_line!r} names several values: add -m to run them all")
    composed = _compose(words)
    return {key: value for key, value in composed.items() if key in COMMANDS[command].settings}


def check_sweep(overrides: Sequence[Override]) -> None:
    """Raises ConfigError where a job of a sweep would not compose."""
    register()
    values = [list(o.sweep_string_iterator()) if o.is_sweep_override() else [None] for o in overrides]
    most = max(map(len, values), default=1)
    # Every value of every override once, not every combination: mistakes sit in single values.
    for i in range(most):
        _compose([_override_of_job(o, column[i % len(column)]) for o, column in zip(overrides, values, strict=True)])


def _override_of_job(override: Override, value: str | None) -> str:
    """An override with one value of its sweep; as it is where it is no sweep (None)."""
    return str(override.input_line) if value is None else f"{override.get_key_element()}={value}"


def hydra_overrides(words: Sequence[str]) -> list[str]:
    """The words in Hydra's grammar, without `supernet=module:Class`, `task=module:name`, free keys and a bare `<=`."""
    overrides = []
    for word in words:
        key, equals, value = word.partition("=")
        if re.fullmatch(r"(supernet|task)=[\w.]+:\w+", word):
            overrides += [f"{key}=own", f"{key}.target='{value}'"]
            continue
        if key.startswith("supernet.needs.") and value[:1] not in ("'", '"'):
            value = f"'{value}'"
        if key == "constraints":
            value = _quote_constraints(value)
        group = next((start for start in NAMED_KEYS if word.startswith(start)), "")
        if group and not re.fullmatch(r"[\w-]+", name := key.removeprefix(group)):  # Such as block1.depth or val/acc.
            key, value = group[:-1], "{" + re.sub(r"([\\()\[\]{}:=,\s])", r"\\\1", name) + f":{value}}}"
        overrides.append(f"{'+' * word.startswith(FREE_KEYS)}{key}{equals}{value}")
    return overrides


def _quote_constraints(constraints: str) -> str:
    """`[latency<=5,macs<=2e8]`, or one constraint alone, as a list of quoted words.

    Several lists, `[…],[…]`, are the values of a sweep.
    """
    if re.fullmatch(r"\[.*\]\s*,\s*\[.*\]", constraints):
        lists = re.split(r"\]\s*,\s*\[", constraints[1:-1])
        return ",".join(_quote_constraints(f"[{words}]") for words in lists)
    words = [word.strip().strip("'\"") for word in constraints.removeprefix("[").removesuffix("]").split(",")]
    return "[" + ",".join(f"'{word}'" for word in words if word) + "]"


def parse_overrides(words: Sequence[str]) -> list[Override]:
    """The words as Hydra parses them. Raises ConfigError for a word that it cannot read."""
    try:
        return OverridesParser.create().parse_overrides(list(words))
    except OverrideParseException as error:
        raise ConfigError(f"{error.override!r} is not of the form key=value ({str(error).splitlines()[1]})") from None


def _compose(words: Sequence[str]) -> dict[str, Any]:
    """All settings as plain data. Raises ConfigError in one line for what Hydra refuses."""
    try:
        with initialize_config_module("nasjax.conf", version_base="1.3"):
            return OmegaConf.to_container(compose("config", overrides=list(words)), resolve=True)  # type: ignore
    except MissingConfigException as error:
        group, _, name = str(error.missing_cfg_file or "").rpartition("/")
        allowed = [option for option in error.options or () if not option.endswith("_schema")]
        raise ConfigError(f"unknown {group} {name!r}; allowed: {', '.join(allowed) or 'none'}") from None
    except ConfigCompositionException as error:
        raise ConfigError(_override_mistake(error, words)) from None
    except (HydraException, OmegaConfBaseException) as error:
        key = getattr(error, "full_key", None) or getattr(error.__cause__, "full_key", None)
        raise ConfigError(f"{key}: " * bool(key) + str(error).splitlines()[0]) from None


def _override_mistake(error: ConfigCompositionException, words: Sequence[str]) -> str:
    """One line for an override that Hydra could not merge: the key, and what is allowed."""
    first = str(error).splitlines()[0]
    cause = str(error.__cause__ or "").splitlines()
    if cause and "is not a ListConfig" in cause[0]:
        return f"{first.rpartition(' ')[2].rstrip(':')} is not a list: say key=[value,…]"
    if not first.startswith("Could not override '"):
        return " ".join([first + (":" if cause else ""), *cause[:1]])
    key = first.split("'")[1]
    parent, _, _ = key.rpartition(".")
    # What is allowed depends on the name chosen for the group (tactic=random), not on the default name.
    groups = [word for word in words if word.startswith(f"{parent.partition('.')[0]}=")]
    node = OmegaConf.select(OmegaConf.create(_compose(groups)), parent) if parent else _compose([])
    allowed = ", ".join(map(str, node)) if node else "none"
    return f"unknown setting {key!r}; allowed {f'in {parent}' if parent else 'here'}: {allowed}"
