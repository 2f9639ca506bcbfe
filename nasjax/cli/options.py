"""Every command of nasjax, stated once: its summary, the settings that it reads, its own options, and its handler.

The parser, `--help`, completion and the check of keys are derived from this table. Settings are Hydra's (the files in
conf/); options are keys of one command that are not settings, such as `out=FILE.csv`. Both are written KEY=VALUE.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from nasjax.errors import ConfigError
from nasjax.host import MOST_FOLDERS


@dataclass(frozen=True)
class CommandOption:
    """A key of one command: `key=value`, where `value` says in capitals what is expected, and `help` what it is for.

    A flag without a value (`value` is "") is "yes" where it is given.
    """

    key: str
    value: str
    help: str

    @property
    def is_path(self) -> bool:
        """Whether the value is a file or folder."""
        return self.value.startswith(("FILE", "FOLDER"))


@dataclass(frozen=True)
class Paths:
    """What a command takes without a key, files and folders mostly: before its KEY=VALUE words, or `among_words`."""

    name: str
    help: str
    several: bool = True
    among_words: bool = False
    required: bool = True


@dataclass(frozen=True)
class Command:
    """A command. `handler` is the function that runs it as `module:function`, `multirun_handler` the one for `-m`.

    `configured`: it reads configurations though it has no settings.
    """

    name: str
    summary: str
    handler: str
    settings: tuple[str, ...] = ()
    options: tuple[CommandOption, ...] = ()
    flags: tuple[CommandOption, ...] = ()
    paths: Paths | None = None
    words_required: bool = False
    multirun_handler: str = ""
    configured: bool = False

    @property
    def keys(self) -> tuple[str, ...]:
        """All keys of its KEY=VALUE words: the options, then the settings."""
        return (*(option.key for option in self.options), *self.settings)


@dataclass(frozen=True)
class Arguments:
    """The arguments of a `command`: `settings` for Hydra (words KEY=VALUE), values of its own `options`, and `paths`.

    `composed` is the configuration of these settings, where it has been composed already.
    """

    command: str = ""
    settings: tuple[str, ...] = ()
    options: Mapping[str, str] = field(default_factory=dict)
    paths: tuple[str, ...] = ()
    composed: dict[str, Any] | None = None


QUIET = CommandOption("quiet", "", "show no progress, only results, warnings and errors")

COMMANDS: Mapping[str, Command] = {
    command.name: command
    for command in (
        Command(
            name="search",
            summary="find the Pareto front of a super-network's sub-networks",
            handler="nasjax.cli.search:search",
            multirun_handler="nasjax.cli.multirun:sweep_searches",
            flags=(QUIET,),
            settings=(
                *("supernet", "task", "tactic", "algorithm", "predictor", "evaluator", "hardware", "objectives"),
                *("constraints", "references", "evaluations", "minutes", "seed", "seeds", "run", "archive"),
                *("warm_start", "proxies", "space_reduction", "tracker", "distributed"),
                *("tactic_device", "experiment", "debug"),
            ),
        ),
        Command(
            name="train",
            summary="train a super-network, or train an extracted network on, and write the weights",
            handler="nasjax.cli.train:train",
            multirun_handler="nasjax.cli.multirun:sweep_trainings",
            flags=(QUIET,),
            settings=(
                *("supernet", "subnet", "largest", "teacher", "task", "trainer", "evaluator", "seed", "run"),
                *("tracker", "experiment", "debug"),
            ),
        ),
        Command(
            name="import",
            summary="convert published weights to a safetensors file",
            handler="nasjax.cli.import_weights:import_weights",
            settings=("supernet",),
            options=(
                CommandOption("out", "FILE", "the file to write; by default NAME.safetensors, NAME the super-network's"),
            ),
            paths=Paths(
                "CHECKPOINT", "a PyTorch state dict (.pth), or safetensors, with the published names", several=False
            ),
        ),
        Command(
            name="import-results",
            summary="convert result tables of DyNAS-T to a table that can be searched",
            handler="nasjax.cli.import_results:import_results",
            settings=("supernet",),
            options=(CommandOption("out", "FILE.csv", "the table to write; by default imported.csv"),),
            paths=Paths(
                "FILE.csv",
                "result tables, joined into one table; supernet=NAME where the architectures are Once-for-All's",
                among_words=True,
            ),
            words_required=True,
        ),
        Command(
            name="extract",
            summary="extract sub-networks of a finished search, or given ones, verify them, and export them",
            handler="nasjax.cli.extract:extract",
            flags=(QUIET,),
            settings=("supernet", "task", "evaluator", "hardware", "seed", "experiment"),
            options=(
                CommandOption(
                    "run", "FOLDER", "the search whose networks are extracted; without it, settings and arch= or archs="
                ),
                CommandOption("network", "INDEX", "the network with this index in evaluations.csv"),
                CommandOption(
                    "select", "RULE", "knee or all (of the front), or the best within constraints, as in macs<=2e5"
                ),
                CommandOption("arch", "GENE=OPTION,…", "a network by its genes"),
                CommandOption("archs", "FILE.csv", "networks by their genes, a column for each"),
                CommandOption("out", "FOLDER", "where to write; by default subnets/INDEX in the folder of the search"),
                CommandOption("export", "FORMATS", "further files to write: some of stablehlo,onnx,pth,safetensors"),
                CommandOption("batch", "NUMBER", "the fixed batch size of StableHLO and ONNX files; by default any"),
                CommandOption("archive", "FILE", "where the archive of the search is, if it is its own no more"),
                CommandOption("subnet", "FOLDER", "a network that was extracted before, or trained on, to export"),
            ),
            words_required=True,
        ),
        Command(
            name="translate",
            summary="translate text by an extracted network, a sentence on each line",
            handler="nasjax.cli.translate:translate",
            flags=(QUIET,),
            options=(
                CommandOption("subnet", "FOLDER", "the network, as nasjax extract has written it"),
                CommandOption("text", "FILE", "the sentences; by default standard input"),
            ),
            words_required=True,
        ),
        Command(
            name="evaluate",
            summary="measure given architectures",
            handler="nasjax.cli.evaluate:evaluate",
            flags=(QUIET,),
            settings=("supernet", "task", "evaluator", "seed", "experiment", "debug"),
            options=(
                CommandOption("archs", "FILE.csv", "architectures, a column for each gene; by default the front of run="),
                CommandOption("out", "FILE.csv", "the table to write; by default evaluated.csv"),
                CommandOption("run", "FOLDER", "a search whose settings are used; no other settings are then given"),
                CommandOption("split", "SPLIT", "the data to measure on: validation (by default) or test"),
            ),
            words_required=True,
        ),
        Command(
            name="latency",
            summary="time a super-network on hardware, and say how well latencies are then estimated",
            handler="nasjax.cli.latency:latency",
            flags=(QUIET,),
            settings=("supernet", "hardware", "seed"),
            options=(
                CommandOption("out", "FILE.csv", "a table of the latencies to write, which hardware=csv reads"),
                CommandOption("samples", "NUMBER", "random networks whose estimated latencies are added to the table"),
                CommandOption("steps", "NUMBER", "tokens to decode, how often repeated stages run; by default 1"),
                CommandOption("beams", "NUMBER", "continuations of one example that a step decodes at once; by default 1"),
            ),
            words_required=True,
        ),
        Command(
            name="report",
            summary="write the page, plots and table of a run anew; compare several runs; watch those of a folder",
            handler="nasjax.cli.report:report",
            flags=(
                CommandOption(
                    "out", "FOLDER", "where a comparison is written, or FILE.html; by default the first of the folders"
                ),
                CommandOption("watch", "", "serve pages of all runs in a folder, updated while they run, until Ctrl-C"),
                CommandOption("port", "NUMBER", "of --watch, at 127.0.0.1; by default 8765; 0: any that is free"),
            ),
            paths=Paths("RUN", "a run folder; several, or a folder of them, are compared"),
        ),
        Command(
            name="list",
            summary="list every name that a setting may have; list KEY or KEY=NAME: its settings, defaults and meanings",
            handler="nasjax.cli.list_names:list_names",
            configured=True,
            paths=Paths("KEY", "a setting (evaluations), a group (tactic), or a name of it (tactic=random)", required=False),
        ),
    )
}


SEARCH_PATH, CONFIG_NAME = "hydra.searchpath", "hydra.job.config_name"
"""Hydra's settings for further folders of configurations, and for the file that all begins with."""

GLOBAL_GROUPS = ("experiment", "debug")
"""The groups whose names set keys of all others."""

OWN_FOLDER = Path("conf")
"""The folder of a person's own configurations, in the working directory: `conf/experiment/NAME.yaml`, `conf/tactic/…`."""


def own_folders(given: str = "") -> list[Path]:
    """The folders of a person's own configurations: the one that is `given`, and OWN_FOLDER where it is there.

    Raises ConfigError where `given` is not a folder.
    """
    if given and not Path(given).is_dir():
        raise ConfigError(f"--config-dir={given} is not a folder")
    package = Path(str(files("nasjax.conf"))).resolve()
    found = [Path(given).absolute()] * bool(given) + [OWN_FOLDER.absolute()] * OWN_FOLDER.is_dir()
    return [folder for folder in dict.fromkeys(found) if folder.resolve() != package]


def search_path(places: Sequence[Path | str]) -> Iterator[str]:
    """The word that has Hydra look for configurations in these folders, and places as Hydra writes them; or none."""
    if places:
        written = (f"file://{place}" if isinstance(place, Path) else place for place in places)
        quoted = ("'{}'".format(place.replace("'", "\\'")) for place in written)
        yield f"{SEARCH_PATH}=[{','.join(quoted)}]"


def group_names(own: Sequence[Path] = ()) -> dict[str, list[str]]:
    """The names in conf/ by group (supernet, task, …), read without importing what they stand for.

    `own`: a person's own folders of such groups (see `own_folders`), whose names are added.
    """
    return {group: sorted(found) for group, found in sorted(group_files(own).items())}


def group_files(own: Sequence[Path] = ()) -> dict[str, dict[str, Traversable]]:
    """The YAML file of every name in every group; the package's where several have it, as Hydra takes them."""
    package = files("nasjax.conf")
    groups = [folder.name for folder in package.iterdir() if folder.is_dir() and folder.name != "__pycache__"]
    found: dict[str, dict[str, Traversable]] = {group: {} for group in groups}
    for root in (*reversed(own), package):
        for group in groups:
            folder = root.joinpath(group)
            with suppress(OSError):  # A folder of others that may not be read.
                if folder.is_dir():
                    found[group] |= {file.name[:-5]: file for file in folder.iterdir() if file.name.endswith(".yaml")}
    return found


def read_words(
    command: Command, words: Sequence[str], folders: Sequence[Path] = (), further: Sequence[str] = ()
) -> Arguments:
    """Sorts words into settings, the command's options (the last of equal keys counts) and paths.

    `folders` are a person's own configurations, see `own_folders`, `further` those that only Hydra reads. Raises
    ConfigError for a word without `=`, a key that the command does not have, and a name that its group does not have.
    """
    searched = any(word.startswith(f"{SEARCH_PATH}=") for word in words)
    names = {} if searched or further else group_names(folders)
    own = {option.key for option in command.options}
    settings: list[str] = []
    options: dict[str, str] = {}
    paths: list[str] = []
    for word in words:
        key, equals, value = word.partition("=")
        if value.count("/") > MOST_FOLDERS:
            raise ConfigError(f"{key}= has more than {MOST_FOLDERS} folders in one another")
        if command.paths is not None and command.paths.among_words and (not equals or Path(word).is_file()):
            paths.append(word)
        elif equals and key in own:
            options[key] = value
        else:
            _check_setting(command, word, names)
            settings.append(word)
    return Arguments(command.name, tuple(settings), options, tuple(paths))


def _check_setting(command: Command, word: str, names: Mapping[str, Sequence[str]]) -> None:
    """Raises ConfigError for a word that sets none of the command's settings, or is not a name of its group.

    Hydra's own settings (`hydra/…`) are let through.
    """
    if word.startswith("~"):
        raise ConfigError(f"{word}: settings cannot be removed; {_instead_of_removing(word[1:].partition('=')[0])}")
    if "=" not in word:
        raise ConfigError(f"{word!r} is not of the form key=value (it has no '=')")
    key = word.partition("=")[0].strip().lstrip("+").partition("@")[0].partition(".")[0]
    if key not in command.settings and key.partition("/")[0] != "hydra":
        raise ConfigError(f"nasjax {command.name} has no setting {key!r}; allowed: {', '.join(command.keys)}")
    group, _, value = word.partition("=")
    if group in names and re.fullmatch(r"[\w.-]+(,[\w.-]+)*", value):  # Anything else is Hydra's to read.
        for name in value.split(","):
            if name not in (*names[group], "null"):
                raise ConfigError(f"unknown {group} {name!r}; allowed: {', '.join(names[group])}")


def _instead_of_removing(key: str) -> str:
    """What to say where `~key` was meant to remove a setting."""
    if key == "tracker":
        return "say tracker=none"
    optional = key in default_names() and default_names()[key] == "null"
    return f"say {key}=null" if optional else f"leave {key} out for its default, or give it another value"


def default_names() -> dict[str, str]:
    """The name that each group of conf/ has by default, null for none: the defaults of config.yaml."""
    text = files("nasjax.conf").joinpath("config.yaml").read_text(encoding="utf-8")
    return dict(re.findall(r"^  - (\w+): (\S+)$", text, re.MULTILINE))


def whole_number(options: Mapping[str, str], key: str, least: int, meaning: str) -> int | None:
    """The value of an option as a whole number, None where it is not given. Raises ConfigError below `least`."""
    if key not in options:
        return None
    if not options[key].isdecimal() or int(options[key]) < least:
        raise ConfigError(f"{key}={options[key]} is not {meaning}")
    return int(options[key])
