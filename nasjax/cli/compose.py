"""Settings on the command line (words KEY=VALUE) composed by Hydra into a configuration; mistakes are one line each."""

import re
from collections.abc import Sequence
from itertools import product
from typing import Any

import yaml
from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from nasjax.cli.hydra_settings import ACTING_ONLY, check_files, check_overrides
from nasjax.cli.options import (
    COMMANDS,
    CONFIG_NAME,
    SEARCH_PATH,
    Arguments,
    group_names,
    own_folders,
    search_path,
)
from nasjax.cli.schemas import kept_columns, register
from nasjax.errors import ConfigError
from nasjax.runs.folder import check_budget, check_seeds, flatten_settings, plain_data

NAMED_KEYS = ("references.", "supernet.genes.", "supernet.needs.")
"""How settings begin that end with the name of a metric or gene."""

FREE_KEYS = (*NAMED_KEYS, "supernet.arguments.", "supernet.graph.", "task.arguments.")
"""How settings begin whose last part a person may choose freely."""


def print_settings(arguments: Arguments) -> int:
    """Runs a command with `--cfg job`: prints its composed settings as YAML."""
    print(yaml.safe_dump(plain_data(configuration_of(arguments)), sort_keys=False), end="")
    return 0


def configuration_of(arguments: Arguments) -> dict[str, Any]:
    """The configuration of a command. Raises ConfigError as `configuration` does."""
    return configuration(arguments.command, arguments.settings) if arguments.composed is None else arguments.composed


def configuration(command: str, words: Sequence[str]) -> dict[str, Any]:
    """The composed configuration as plain data, with the settings that the command reads.

    Raises ConfigError for words that cannot be read, unknown names and settings, and values of a wrong type.
    """
    register()
    words = hydra_overrides(words)
    overrides = parse_overrides(words)
    check_overrides(overrides)
    for override in overrides:
        if override.is_sweep_override():
            raise ConfigError(_several_values(command, override, [o for o in overrides if not o.is_sweep_override()]))
    settings = _compose(words)
    return {key: value for key, value in settings.items() if key in COMMANDS[command].settings}


def with_search_path(words: Sequence[str]) -> list[str]:
    """The words, and where a person has configurations of their own (`conf/`), that Hydra looks there, too."""
    given = any(word.startswith(f"{SEARCH_PATH}=") for word in words)
    return [*words, *(() if given else search_path(own_folders()))]


def find_first_file(loader: Any, words: Sequence[str]) -> str:
    """The name of the file that all settings begin with, which `loader`, Hydra's, then finds on the whole search path.

    Hydra itself takes the first file from its own folder only.
    """
    name = next((word.partition("=")[2] for word in words if word.startswith(f"{CONFIG_NAME}=")), "config")
    if name != "config":
        path = loader.config_search_path
        for override in parse_overrides([word for word in words if word.startswith(f"{SEARCH_PATH}=")]):
            for place in override.value():  # type: ignore[union-attr]
                path.prepend("own", str(place), "schema")
        loader.repository.initialize_sources(path)
    return name


def _several_values(command: str, override: Override, others: Sequence[Override]) -> str:
    """What to do about several values of a setting where one is expected: a list, or a sweep."""
    key, value = override.key_or_group, override.get_value_string()
    config = _composed([str(other.input_line) for other in others])
    if _is_list(config, key):
        if key == "constraints":  # Each has been put into brackets of its own.
            value = re.sub(r"\['|'\]", "", value)
        return f"{key}={value} is not a list: say {key}=[{value}]"
    instead = "add -m to run them all" if COMMANDS[command].multirun_handler else f"nasjax {command} takes one"
    return f"{key}={value} names several values: {instead}"


def _is_list(config: DictConfig, key: str) -> bool:
    """Whether the value of a setting must be a list."""
    parent = OmegaConf.select(config, key.rpartition(".")[0]) if "." in key else config
    node = parent._get_node(key.rpartition(".")[2], validate_access=False) if isinstance(parent, DictConfig) else None
    return isinstance(node, ListConfig) or key.startswith("supernet.genes.")


def jobs_of_sweep(overrides: Sequence[Override], of_hydra: Sequence[str]) -> list[list[str]]:
    """The words of each job: every combination of the values; `of_hydra` are words for Hydra itself.

    Raises ConfigError for a range without steps, an override without values, and where a job would not compose: every value
    is tried once, not every combination, since composing takes a quarter of a second.
    """
    register()
    columns = [_words_of(override) for override in overrides]
    for i in range(max(map(len, columns), default=1)):
        job = [column[i % len(column)] for column in columns]
        try:
            _compose([*of_hydra, *job])
        except ConfigError:
            for override in overrides:  # Several values of a list are more often one list than a sweep's values.
                key, value = override.key_or_group, override.get_value_string()
                others = [word for word in job if not word.startswith(f"{override.get_key_element()}=")]
                if override.is_sweep_override() and "[" not in value and _is_list(_composed(others), key):
                    raise ConfigError(f"{key}={value} is not a list: say {key}=[{value}]") from None
            raise
    return [list(job) for job in product(*columns)]


def _words_of(override: Override) -> list[str]:
    """A word KEY=VALUE for each value of an override."""
    word = str(override.input_line)
    if not override.is_sweep_override():
        return [word]
    if override.is_interval_sweep():
        raise ConfigError(f"{word} has no steps: say {override.key_or_group}=range(FIRST,END) or list the values")
    names = group_names(own_folders()).get(override.key_or_group, [])
    value = override.value()
    values = value.filter(names) if isinstance(value, Glob) else list(override.sweep_string_iterator())
    if not values:
        raise ConfigError(f"{word} names no value" + f"; allowed: {', '.join(names)}" * bool(names))
    return [f"{override.get_key_element()}={value}" for value in values]


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


def _quote_constraints(value: str) -> str:
    """Every constraint in quotes, and one without brackets, as in `latency<=5`, in brackets: each value is a list.

    Several lists, `[…],[…]` or `choice([…],[…])`, are the values of a sweep.
    """
    if call := re.fullmatch(r"\s*(choice|shuffle)\((.*)\)\s*", value):
        return f"{call[1]}({_quote_constraints(call[2])})"
    template = "'{}'" if "[" in value else "['{}']"
    words = r"\s*('[^']*'|\"[^\"]*\"|[^\[\],'\"\s][^\[\],'\"]*)"
    quoted = re.sub(words, lambda match: template.format(match[1].strip(" '\"").replace("'", "\\'")), value)
    return quoted or "[]"


def parse_overrides(words: Sequence[str]) -> list[Override]:
    """The words as Hydra parses them. Raises ConfigError for a word that it cannot read."""
    try:
        return OverridesParser.create().parse_overrides(list(words))
    except RecursionError:
        raise ConfigError("a value has too many nested brackets") from None
    except ValueError:  # Python reads no whole number of more than 4,300 digits.
        raise ConfigError("a whole number has thousands of digits: give a smaller one") from None
    except OverrideParseException as error:
        # The first line repeats the word, or is the reason; the last one is a link.
        lines = [line for line in str(error).splitlines()[:-1] if line.strip(" ^")]
        reason = "a character is not allowed" if lines[-1].startswith("LexerNoViableAlt") else lines[-1]
        raise ConfigError(f"{error.override!r} is not of the form key=value ({reason})") from None


def _compose(words: Sequence[str]) -> dict[str, Any]:
    """All settings as plain data. Raises ConfigError in one line for what Hydra refuses."""
    config = _composed(words)
    try:
        settings: Any = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except MissingMandatoryValue as error:
        raise ConfigError(f"{error.full_key}=??? is not a value; give one, or leave the setting out") from None
    except OmegaConfBaseException as error:
        raise ConfigError(_mistake(error)) from None
    check_budget(settings["evaluations"], settings["minutes"])
    check_seeds(settings["seed"], settings["seeds"])
    for key, value in flatten_settings(settings).items():
        _check_64_bits(key, value)
    for group in group_names().keys() & settings.keys():
        if isinstance(settings[group], dict) and settings[group].get("name") is None:
            chosen = next((word for word in words if word.startswith(f"{group}=")), group)
            raise ConfigError(
                f"{chosen} has no name: its file must begin with defaults: [NAME_schema], as tactic: random_schema"
            )
    return settings


def _composed(words: Sequence[str]) -> DictConfig:
    """All settings. Raises ConfigError in one line for what Hydra refuses."""
    groups = group_names(own_folders())
    for override in parse_overrides(words):
        key, value = override.key_or_group, override.value()
        if ((key in groups or key.startswith("hydra/")) and not isinstance(value, str | dict)) or key == "hydra":
            raise ConfigError(f"{override.input_line} is not a name; allowed: {', '.join(groups.get(key, ())) or 'none'}")
    try:
        with initialize_config_module("nasjax.conf", version_base="1.3"):
            words = with_search_path(words)
            name = find_first_file(GlobalHydra.instance().config_loader(), words)
            config = compose(name, overrides=words, return_hydra_config=True)
            check_files(name, config.hydra)
            with open_dict(config):
                del config["hydra"]
            return config
    except MissingConfigException as error:
        group, _, name = str(error.missing_cfg_file or "").rpartition("/")
        if not group:
            raise ConfigError(f"--config-name={name}: there is no {name}.yaml in conf or --config-dir") from None
        allowed = [option for option in error.options or () if not option.endswith("_schema")]
        raise ConfigError(f"unknown {group} {name!r}; allowed: {', '.join(allowed) or 'none'}") from None
    except ConfigCompositionException as error:
        raise ConfigError(_override_mistake(error, words)) from None
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(_mistake(error)) from None
    except yaml.YAMLError as error:
        raise ConfigError(f"a configuration of yours is not YAML: {' '.join(str(error).split())}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"a configuration of yours, in conf or --config-dir, is not text in UTF-8 ({error.reason})"
        ) from None


def _mistake(error: Exception) -> str:
    """The first line of an error, after the setting where it is known."""
    key = getattr(error, "full_key", None) or getattr(error.__cause__, "full_key", None)
    return f"{key}: " * bool(key) + str(error).splitlines()[0]


def _check_64_bits(key: str, value: Any) -> None:
    """Raises ConfigError for a whole number, alone or in a list, that needs more than 64 bits."""
    if isinstance(value, list):
        for item in value:
            _check_64_bits(key, item)
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise ConfigError(f"{key}={value} has more than 64 bits: give a smaller number")


KINDS = {"Integer": "a whole number", "Float": "a number", "bool": "true or false"}
"""What OmegaConf's types are called."""

ONE_FOR_SEVERAL = {"warm_start": ", a folder that has all of these runs in it"}
"""The one value that stands for several, of the settings that have it."""


def _override_mistake(error: ConfigCompositionException, words: Sequence[str]) -> str:
    """One line for an override that Hydra could not merge: the key, and what is allowed."""
    first = str(error).splitlines()[0]
    cause = str(error.__cause__ or "").splitlines()
    merged = re.match(r"Error merging override \+*(\S+?)=(.*?):?$", first)
    if cause and "is not a ListConfig" in cause[0]:
        key, _, value = first.rpartition(" ")[2].rstrip(":").partition("=")
        return f"{key}={value} is not a list: say {key}=[{value}]"
    if cause and merged and "Cannot convert 'list' to string" in cause[0]:
        return f"{merged[1]}={merged[2]} is a list: give one value{ONE_FOR_SEVERAL.get(merged[1], '')}"
    wanted = re.search(r"could not be converted to (\w+)|is not a valid (bool)", cause[0]) if cause else None
    if merged and wanted and (kind := wanted[1] or wanted[2]) in KINDS:
        return f"{merged[1]}={merged[2]}{': each' * merged[2].startswith('[')} must be {KINDS[kind]}"
    if file := re.match(r"In '(?:(\w+)/)?([^']+)': \w+ raised while composing config", first):
        # A file's setting that the name chosen for its group does not have.
        lacking = re.search(r"full_key: ([\w.]+)", str(error))
        chosen = [word for word in words if lacking and word.startswith(f"{lacking[1].partition('.')[0]}=")]
        if lacking and lacking[1] == file[1]:
            return f"{file[1]}={file[2]} sets no {file[1]}: its first line must be # @package _global_"
        if lacking and chosen and lacking[1].startswith(f"{file[1]}."):
            return f"{file[1]}={file[2]} sets {lacking[1]}, which the name that it is made of does not have: remove it"
        if lacking and chosen:
            return f"{file[1]}={file[2]} sets {lacking[1]}, which {chosen[-1]} does not have: leave one of the two out"
        said = f"{file[1]}={file[2]}" if file[1] else f"{file[2]}.yaml"
        reason = next(iter(str(error).splitlines()[1:2]), "")
        if lacking and re.match("Key '.*' not in '", reason):
            return f"{said} sets {lacking[1]}, which is not a setting; {_allowed_beside(lacking[1], words)}"
        return f"{said}: {f'{lacking[1]}: ' if lacking else ''}{reason}"
    if not first.startswith("Could not override '"):
        return " ".join([first + (":" if cause else ""), *cause[:1]])
    key = first.split("'")[1]
    if f"{key}." in FREE_KEYS:
        return f"{key} has names of your choice: say {key}.NAME=VALUE for each"
    return f"unknown setting {key!r}; {_allowed_beside(key, words)}"


def _allowed_beside(key: str, words: Sequence[str]) -> str:
    """The settings that could have been meant by an unknown one, and the names whose setting it is."""
    parent, _, leaf = key.rpartition(".")
    if parent.partition(".")[0] == "hydra":
        return ACTING_ONLY
    # What is allowed depends on the name chosen for the group (tactic=random), not on the default name.
    groups = [word for word in words if word.startswith(f"{parent.partition('.')[0]}=")]
    node = OmegaConf.select(OmegaConf.create(_compose(groups)), parent) if parent else _compose([])
    allowed = ", ".join(str(name) for name in node or () if name != "name") or "none"
    others = [
        name for (group, name), (_, columns) in kept_columns().items() if group == parent and leaf in [c[0] for c in columns]
    ]
    elsewhere = f"; {leaf} is a setting of {parent}={'|'.join(others)}" if others else ""
    return f"allowed {f'in {parent}' if parent else 'here'}: {allowed}{elsewhere}"
