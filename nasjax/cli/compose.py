"""The command line's words as a configuration; a mistake in them becomes one line."""

import re
from collections.abc import Sequence
from typing import Any

from hydra import compose, initialize_config_module
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException, OverrideParseException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from nasjax.cli.keys import KEYS
from nasjax.cli.schemas import register
from nasjax.errors import ConfigError

FREE = ("references.", "supernet.genes.", "supernet.needs.", "supernet.arguments.")
"""Tables to which a person may add keys."""


def configuration(command: str, words: Sequence[str]) -> dict[str, Any]:
    """The composed configuration as plain data, with the keys that the command reads. Raises ConfigError in one line."""
    register()
    for override in parsed(words):
        check_key(command, override)
        if override.is_sweep_override():
            raise ConfigError(f"{override.input_line!r} names several values: add -m to run them all")
    composed = _composed(words)
    return {key: value for key, value in composed.items() if key in KEYS[command]}


def check_sweep(command: str, words: Sequence[str]) -> None:
    """Raises ConfigError where any job of a sweep would not compose."""
    register()
    overrides = parsed(words)
    for override in overrides:
        check_key(command, override)
        if override.key_or_group == "run":
            raise ConfigError("run= cannot be given with -m: jobs are named from their overrides")
    values = [list(o.sweep_string_iterator()) if o.is_sweep_override() else [None] for o in overrides]
    most = max(map(len, values), default=1)
    # Every value of every override once, not every combination: mistakes sit in single values.
    for i in range(most):
        _composed([_job_word(o, column[i % len(column)]) for o, column in zip(overrides, values, strict=True)])


def _job_word(override: Override, value: str | None) -> str:
    return str(override.input_line) if value is None else f"{override.get_key_element()}={value}"


def rewritten(words: Sequence[str]) -> list[str]:
    """Words that Hydra's grammar has no place for: a class of one's own, and keys of tables with free names."""
    rewritten = []
    for word in words:
        if re.fullmatch(r"supernet=[\w.]+:\w+", word):
            rewritten += ["supernet=own", f"supernet.target='{word.partition('=')[2]}'"]
        else:
            key, _, value = word.partition("=")
            value = f"'{value}'" if key.startswith("supernet.needs.") and value[:1] not in ("'", '"') else value
            value = _quoted(value) if key == "constraints" else value
            rewritten.append(f"{'+' * word.startswith(FREE)}{key}={value}" if "=" in word else word)
    return rewritten


def _quoted(constraints: str) -> str:
    """`[latency<=5,macs<=2e8]`, or one constraint alone, as a list of quoted words: Hydra's grammar refuses a bare `<=`.

    Several lists, `[…],[…]`, are the values of a sweep.
    """
    if re.fullmatch(r"\[.*\]\s*,\s*\[.*\]", constraints):
        return ",".join(_quoted(f"[{one}]") for one in re.split(r"\]\s*,\s*\[", constraints[1:-1]))
    words = constraints.removeprefix("[").removesuffix("]").split(",")
    return "[" + ",".join(f"'{word}'" for word in (w.strip().strip("'\"") for w in words) if word) + "]"


def check_key(command: str, override: Override) -> None:
    key = override.key_or_group.split(".")[0]
    if key not in KEYS[command] and key.split("/")[0] != "hydra":
        raise ConfigError(f"nasjax {command} has no setting {key!r}; allowed: {', '.join(KEYS[command])}")


def parsed(words: Sequence[str]) -> list[Override]:
    """Hydra's reading of the words. Raises ConfigError for a word that it cannot read."""
    try:
        return OverridesParser.create().parse_overrides(list(words))
    except OverrideParseException as error:
        reason = str(error).splitlines()[1] if "=" in error.override else "it has no '='"
        raise ConfigError(f"{error.override!r} is not of the form key=value ({reason})") from None


def _composed(words: Sequence[str]) -> dict[str, Any]:
    try:
        with initialize_config_module("nasjax.conf", version_base="1.3"):
            return OmegaConf.to_container(compose("config", overrides=list(words)), resolve=True)  # type: ignore
    except MissingConfigException as error:
        group, _, name = str(error.missing_cfg_file or "").rpartition("/")
        allowed = [option for option in error.options or () if not option.endswith("_schema")]
        raise ConfigError(f"unknown {group} {name!r}; allowed: {', '.join(allowed) or 'none'}") from None
    except ConfigCompositionException as error:
        raise ConfigError(_merge_mistake(error, words)) from None
    except (HydraException, OmegaConfBaseException) as error:
        key = getattr(error, "full_key", None) or getattr(error.__cause__, "full_key", None)
        raise ConfigError(f"{key}: " * bool(key) + str(error).splitlines()[0]) from None


def _merge_mistake(error: ConfigCompositionException, words: Sequence[str]) -> str:
    """One line for an override that does not fit, naming the key and what is allowed."""
    first = str(error).splitlines()[0]
    cause = str(error.__cause__ or "").splitlines()
    if cause and "is not a ListConfig" in cause[0]:
        return f"{first.rpartition(' ')[2].rstrip(':')} is not a list: say key=[value,…]"
    if not first.startswith("Could not override '"):
        return " ".join([first + (":" if cause else ""), *cause[:1]])
    key = first.split("'")[1]
    parent, _, _ = key.rpartition(".")
    # What is allowed depends on the tactic that was named, not on the default one.
    groups = [word for word in words if word.startswith(f"{parent.partition('.')[0]}=")]
    node = OmegaConf.select(OmegaConf.create(_composed(groups)), parent) if parent else _composed([])
    allowed = ", ".join(map(str, node)) if node else "none"
    return f"unknown setting {key!r}; allowed {f'in {parent}' if parent else 'here'}: {allowed}"
