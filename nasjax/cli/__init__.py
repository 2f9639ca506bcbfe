"""Searches super-networks for their Pareto-optimal sub-networks."""

import argparse
import os
import sys
import traceback
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from nasjax.errors import ConfigError
from nasjax.version import __version__

COMMANDS = {
    "search": "find the Pareto front of a super-network's sub-networks",
    "train": "train a super-network and write its weights",
    "import": "convert published weights to a safetensors file",
    "import-results": "convert result tables of DyNAS-T to a table that can be searched",
    "extract": "slice networks of a finished run out, or given ones, verified, and export them",
    "evaluate": "measure given architectures",
    "latency": "time a super-network's parts on hardware, and say how well its latencies are then known",
    "report": "write a run's page, plots and table anew; compare several runs",
    "list": "every name that a setting may have, with a line on each",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; a person's mistake is one line on the error output and exit code 2."""
    parser = _parser()
    if "_ARGCOMPLETE" in os.environ:  # The shell asks what may follow; this answers and exits.
        import argcomplete

        argcomplete.autocomplete(parser, default_completer=_completions)  # type: ignore[arg-type]
    options = parser.parse_args(arguments)
    try:
        from nasjax.cli import commands

        return commands.HANDLERS[options.command](options)
    except ConfigError as error:
        print(f"nasjax: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"nasjax: {error.filename or 'the file system'}: {error.strerror or error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("nasjax: interrupted", file=sys.stderr)
        return 130
    except Exception:
        traceback.print_exc()
        print("nasjax: this is a bug of nasjax, not a mistake of yours: please report what stands above", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="nasjax", description=__doc__)
    parser.add_argument("--version", action="version", version=__version__)
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command, words in COMMANDS.items():
        sub = subparsers.add_parser(
            command, help=words, description=words, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        PARSERS[command](sub)
    return parser


def _completions(prefix: str, action: argparse.Action, parsed_args: argparse.Namespace, **_: Any) -> list[str]:
    from nasjax.cli.complete import completions, paths
    from nasjax.cli.keys import KEYS

    if action.dest != "overrides":
        return list(paths(prefix))
    return completions(parsed_args.command, prefix, KEYS.get(parsed_args.command, ()), groups())


def _settings(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-m", "--multirun", action="store_true", help="run every combination of listed values: seed=0,1,2")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="settings, as in tactic=random evaluations=64")
    parser.epilog = "groups and their names:\n" + "\n".join(
        f"  {group}={'|'.join(names)}" for group, names in groups().items()
    )


def groups() -> dict[str, list[str]]:
    """The names that stand in conf/, by group, without importing what they stand for."""
    folders = [folder for folder in files("nasjax.conf").iterdir() if folder.is_dir() and folder.name != "__pycache__"]
    names = {folder.name: sorted(f.name[:-5] for f in folder.iterdir() if f.name.endswith(".yaml")) for folder in folders}
    return dict(sorted(names.items()))


def _import(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", help="a PyTorch state dict (.pth), or safetensors, with the published names")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="supernet=NAME [supernet.KEY=VALUE] [out=FILE]")


def _import_results(parser: argparse.ArgumentParser) -> None:
    words = "result tables, together one table; supernet=NAME for architectures of Once-for-All, out=TABLE.csv"
    parser.add_argument("overrides", nargs="+", metavar="FILE.csv | KEY=VALUE", help=words)


def _extract(parser: argparse.ArgumentParser) -> None:
    words = (
        "run=FOLDER, with network=INDEX, select=knee|all|NAME<=NUMBER, arch=GENE=OPTION,… or archs=FILE.csv (without a run: "
        "settings and one of the last two), or subnet=FOLDER of a network that was extracted or trained on; "
        "out=FOLDER, export=stablehlo,onnx,pth,safetensors, batch=NUMBER"
    )
    parser.add_argument("overrides", nargs="+", metavar="KEY=VALUE", help=words)


def _evaluate(parser: argparse.ArgumentParser) -> None:
    words = "archs=FILE.csv and settings, or run=FOLDER; out=FILE.csv, split=validation|test"
    parser.add_argument("overrides", nargs="+", metavar="KEY=VALUE", help=words)


def _latency(parser: argparse.ArgumentParser) -> None:
    words = "supernet=NAME hardware=NAME and settings of both; out=FILE.csv, samples=NUMBER of estimated networks in it"
    parser.add_argument("overrides", nargs="+", metavar="KEY=VALUE", help=words)


def _report(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", nargs="+", metavar="RUN", help="a run folder; several, or a folder of them, are compared")
    parser.add_argument("--out", help="where a comparison is written (by default the first of the folders)")


PARSERS = {
    "search": _settings,
    "train": _settings,
    "import": _import,
    "import-results": _import_results,
    "extract": _extract,
    "evaluate": _evaluate,
    "latency": _latency,
    "report": _report,
    "list": lambda parser: None,
}
"""What adds each command's arguments."""
