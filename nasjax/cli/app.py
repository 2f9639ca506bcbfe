"""The program `nasjax`: parses its arguments, runs one command, and turns errors into exit codes.

Nothing here imports JAX or Hydra, so that `--help` and completion in the shell are quick: a command's own module is
imported when the command runs.
"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from importlib import import_module
from typing import Any, NoReturn

from nasjax.cli.failures import (
    INTERRUPTED,
    INVALID,
    UNREAD,
    import_jax,
    nobody_reads,
    print_any_character,
    report_failure,
    shortened,
)
from nasjax.cli.meanings import plain_lines
from nasjax.cli.options import (
    COMMANDS,
    CONFIG_NAME,
    SEARCH_PATH,
    Arguments,
    Command,
    default_names,
    group_names,
    own_folders,
    read_words,
    search_path,
)
from nasjax.cli.own_files import places_of_first_file, shadow_warning
from nasjax.errors import ConfigError
from nasjax.verbosity import quietly
from nasjax.version import __version__


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, as those of all commands."""

    def error(self, message: str) -> NoReturn:
        self.exit(INVALID, f"nasjax: {shortened(message)}; {self.prog} --help shows what is allowed\n")


WITH_VALUE = ("-c", "--cfg", "-cd", "--config-dir", "-cn", "--config-name")
"""Flags of all commands with settings, which a value follows."""

ALL_SETTINGS = "--cfg job prints all settings, resolved"

NOT_HERE = {
    **dict.fromkeys(("--config-path", "-cp"), "say --config-dir FOLDER for configurations of your own"),
    **dict.fromkeys(("--package", "-p", "--resolve", "--info", "-i"), ALL_SETTINGS),
    "--hydra-help": "--help names settings, docs/settings.md those of Hydra that act",
    **dict.fromkeys(("--run", "-r"), "a command runs once without -m"),
    "--experimental-rerun": "the same command with run=FOLDER resumes it",
}
"""Flags of Hydra's that commands do not have, and what to do instead."""

LIGHT = ("nasjax.cli.compose", "nasjax.cli.multirun", "nasjax.cli.list_names")
"""The modules of handlers that import JAX late, or not at all."""

DESCRIPTION = "Searches super-networks for their Pareto-optimal sub-networks."


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code.

    0: done; 1: a bug of nasjax; 2: invalid settings, or a problem with a file or disk; 130: interrupted; 141: what reads the
    output has ended, as in `nasjax list | head -1`.
    """
    print_any_character()
    parser = _parser()
    if "_ARGCOMPLETE" in os.environ:  # The shell asks for completions: they are printed, and the process exits.
        import argcomplete

        argcomplete.autocomplete(parser, default_completer=_completer)  # type: ignore[arg-type]
    words = list(sys.argv[1:] if arguments is None else arguments)
    words[1:] = _flags_first(words[1:])
    try:
        _check_flags(words)
        parsed = parser.parse_args(words)
        command = COMMANDS[parsed.command]
        _check_encoding(words)
        multirun = getattr(parsed, "multirun", False)
        read = _read_arguments(command, parsed)
        handler = command.multirun_handler if multirun else command.handler
        if getattr(parsed, "cfg", None) and (multirun or read.options.keys() - {"quiet"}):
            raise ConfigError("--cfg prints the settings of one command: leave -m and keys that are no settings out")
        if getattr(parsed, "cfg", None) not in (None, "job"):
            raise ConfigError(f"--cfg {parsed.cfg} is not there: {ALL_SETTINGS}")
        if getattr(parsed, "cfg", None):
            handler = "nasjax.cli.compose:print_settings"
        # A sweep composes its jobs itself, and settings beside run= change those of that run.
        if command.settings and read.settings and not multirun and "run" not in read.options:
            read = _compose_first(read)
        if hasattr(parsed, "config_dir") and (warning := shadow_warning(own_folders(parsed.config_dir))):
            print(f"nasjax: warning: {warning}", file=sys.stderr)
        run = _load_handler(handler)
        with quietly() if "quiet" in read.options else nullcontext():
            code = run(read)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        print("nasjax: interrupted", file=sys.stderr)
        if arguments is None:  # A process of its own: one that ends in order while XLA compiles crashes.
            sys.stdout.flush()
            os._exit(INTERRUPTED)
        return INTERRUPTED
    except Exception as error:
        if isinstance(error, BrokenPipeError) and nobody_reads():
            return UNREAD
        code, line = report_failure(error)
        print(f"nasjax: {line}", file=sys.stderr)
        return code


def _flags_first(words: Sequence[str]) -> list[str]:
    """The words of a command with its flags, and their values, before all others, as argparse wants them."""
    flags, others = [], []
    rest = iter(words)
    for word in rest:
        if word in ("-m", "--multirun", "--quiet") or word.startswith(tuple(f"{flag}=" for flag in WITH_VALUE)):
            flags.append(word)
        elif word in WITH_VALUE:
            flags += [word, *([value] if (value := next(rest, None)) is not None else [])]
        else:
            others.append(word)
    return [*flags, *others]


def _check_flags(words: Sequence[str]) -> None:
    """Raises ConfigError for flags that Hydra has and nasjax has not."""
    if words and words[0] in COMMANDS and COMMANDS[words[0]].settings:
        for flag in (word.partition("=")[0] for word in words):
            if flag in NOT_HERE:
                raise ConfigError(f"{flag} is not there: {NOT_HERE[flag]}")


def _check_encoding(words: Sequence[str]) -> None:
    """Raises ConfigError for a word that Python could not decode: it could not be written into a run's files either."""
    for word in words:
        if any("\ud800" <= letter <= "\udfff" for letter in word):
            shown = word.encode("ascii", "replace").decode()
            raise ConfigError(f"{shown} cannot be read in this locale: set PYTHONUTF8=1, or LC_ALL to one that is UTF-8")


def _compose_first(arguments: Arguments) -> Arguments:
    """Composes the settings before JAX is imported, which takes seconds. Raises ConfigError for mistakes in them."""
    from nasjax.cli.compose import configuration_of

    return replace(arguments, composed=configuration_of(arguments))


def _load_handler(name: str) -> Callable[[Arguments], int]:
    """The function that `module:function` names."""
    module, _, function = name.partition(":")
    if module not in LIGHT:
        import_jax()
    return getattr(import_module(module), function)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="nasjax", description=DESCRIPTION)
    parser.add_argument("--version", action="version", version=__version__)
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in COMMANDS.values():
        subparser = subparsers.add_parser(
            command.name,
            help=command.summary,
            description=command.summary,
            epilog=_help_of_keys(command),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        _add_arguments(subparser, command)
    return parser


def _add_arguments(parser: argparse.ArgumentParser, command: Command) -> None:
    if command.multirun_handler:
        parser.add_argument(
            "-m", "--multirun", action="store_true", help="run every combination of listed values, as in seed=0,1,2"
        )
    if command.settings:
        text = "print the settings, as they are composed, and do nothing else"
        parser.add_argument("-c", "--cfg", metavar="job", help=text)
        text = "a file in one of them, in the place of config.yaml"
        parser.add_argument("-cn", "--config-name", metavar="NAME", help=text)
    if command.settings or command.configured:
        text = "your own configurations, beside ./conf"
        parser.add_argument("-cd", "--config-dir", metavar="FOLDER", default="", help=text)
    for flag in command.flags:
        how: dict[str, Any] = {"metavar": flag.value} if flag.value else {"action": "store_const", "const": "yes"}
        parser.add_argument(f"--{flag.key}", help=flag.help, **how)
    metavar, text = "KEY=VALUE", "the keys are listed below"
    if command.paths is not None and command.paths.among_words:
        metavar, text = f"{command.paths.name} | KEY=VALUE", f"{command.paths.help}; {text}"
    elif command.paths is not None:
        number = ("+" if command.paths.required else "*") if command.paths.several else 1
        parser.add_argument("paths", nargs=number, metavar=command.paths.name, help=command.paths.help)
    if command.keys:
        parser.add_argument("words", nargs="+" if command.words_required else "*", metavar=metavar, help=text)


def _help_of_keys(command: Command) -> str:
    """What `--help` says of the command's options and settings, and of the names that a setting may have."""
    lines = []
    if command.options:
        heads = [f"{option.key}={option.value}" for option in command.options]
        width = max(map(len, heads))
        rows = [f"  {head:<{width}}  {option.help}" for head, option in zip(heads, command.options, strict=True)]
        lines += ["options of this command:", *rows, ""]
    if command.settings:
        groups = {group: names for group, names in group_names(own_folders()).items() if group in command.settings}
        others = [key for key in command.settings if key not in groups]
        lines += ["settings, and their defaults:", *plain_lines(others)] if others else []
        lines += ["groups (nasjax list GROUP=NAME shows the settings of each):"]
        default = default_names()
        lines += [f"  {group}={'|'.join(names)}  (default: {default[group]})" for group, names in groups.items()]
    return "\n".join(lines).replace("%", "%%")


def _read_arguments(command: Command, parsed: argparse.Namespace) -> Arguments:
    """The arguments as a command takes them. Raises ConfigError for an unknown key."""
    given, words, name = (
        getattr(parsed, "config_dir", ""),
        getattr(parsed, "words", []),
        getattr(parsed, "config_name", None),
    )
    folders = own_folders(given)
    on_line = any(word.startswith(f"{SEARCH_PATH}=") for word in words)
    if given and on_line:
        raise ConfigError(
            f"--config-dir and {SEARCH_PATH} both name folders: add FOLDER to {SEARCH_PATH}=[…] as file:///FOLDER"
        )
    first = name or next((word.partition("=")[2] for word in words if word.startswith(f"{CONFIG_NAME}=")), None)
    further = places_of_first_file(first, folders) if first and not on_line else []
    arguments = read_words(command, words, folders, further)
    flags = {flag.key: getattr(parsed, flag.key) for flag in command.flags}
    of_hydra = [*search_path([*folders, *further])] if given or further else []
    listed = {"config-dir": given} if given and command.configured else {}
    if name:
        of_hydra.append(f"{CONFIG_NAME}={name}")
    return Arguments(
        command=command.name,
        settings=(*of_hydra, *arguments.settings),
        options={**arguments.options, **{key: value for key, value in flags.items() if value}, **listed},
        paths=(*getattr(parsed, "paths", ()), *arguments.paths),
    )


def _completer(prefix: str, action: argparse.Action, parsed_args: argparse.Namespace, **_: Any) -> list[str]:
    """Completions of one word, called by argcomplete."""
    from nasjax.cli.complete import complete_path, complete_word

    if action.dest == "words":
        return complete_word(COMMANDS[parsed_args.command], prefix, group_names(own_folders()))
    return complete_path(prefix)
