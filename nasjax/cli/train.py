"""`nasjax train`: trains a super-network, or a network that was extracted."""

import re
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from nasjax.cli.compose import configuration_of
from nasjax.cli.console import prepare_jax
from nasjax.cli.failures import naming_full_disk
from nasjax.cli.options import Arguments
from nasjax.errors import ConfigError
from nasjax.progress import ProgressBar
from nasjax.registry import settings
from nasjax.report.training import IMAGE, PAGE, write_training_page
from nasjax.runs.folder import new_path
from nasjax.trackers import TRACKERS, Table, Tracking
from nasjax.training.run import not_logged, train_run
from nasjax.training.watch import CURVES, EVENTS
from nasjax.words import plural


def train(arguments: Arguments) -> int:
    """Runs `nasjax train`."""
    config = configuration_of(arguments)
    prepare_jax()
    folder = Path(config.pop("run") or new_path(f"train-{_trained(config)}"))
    run_training(folder, config, arguments.settings)
    return 0


def _trained(config: Mapping[str, Any]) -> str:
    """The name of what is trained: the super-network's, or `subnet`."""
    return "subnet" if config["subnet"] is not None else config["supernet"]["name"]


def run_training(folder: Path, config: Mapping[str, Any], words: Sequence[str], label: str = "") -> None:
    """Trains as configured, shows progress (see `ProgressBar` for the `label`) and prints scores and files.

    `words` are the settings as they were given.
    """
    if config["subnet"] is not None and any(re.match(r"supernet[.=]", word) for word in words):
        raise ConfigError(f"subnet={config['subnet']} says what is trained: leave supernet= out")
    tracker = settings("tracker", TRACKERS, config["tracker"] or "none")
    tracker.check(folder)
    config = {key: value for key, value in config.items() if key != "tracker"}
    command = " ".join(["nasjax train", *(word for word in words if not word.startswith("run="))])
    resume = f"the same command with run={folder}"
    with Tracking(tracker, folder) as tracking:
        # Curves are written as events anyway, if they are watched.
        told = tracker.logs_curves or not config["trainer"]["watch"]
        log = partial(tracking.log, settings=config) if told else not_logged

        def finish(record: Mapping[str, Any]) -> None:
            page = [write_training_page(folder)] if (folder / CURVES).exists() else []
            tracking.finish({"scores": _scores(record)}, [folder / IMAGE, *page], config)

        try:
            kind = f"train {config['trainer']['name']} {_trained(config)}"
            with naming_full_disk(resume), ProgressBar("epochs", "loss", label=label, kind=kind) as bar:
                alone = ProgressBar("trained alone", "metric", label=label)
                record = train_run(folder, config, command, bar.update, alone.update, log, finish)
        except KeyboardInterrupt:
            print(f"Stopping: what was trained is stored; {resume} resumes training", file=sys.stderr)
            raise
    for name, scores in record["scores"].items():
        print(f"{name}: {record['metric']} " + ", ".join(f"{split} {value:.4g}" for split, value in scores.items()))
    if ranking := record.get("ranking"):
        print(
            "ranking: Kendall's tau {kendall_tau} +- {standard_error} of {alone} trained alone".format(
                **ranking, alone=plural(ranking["networks"], "network")
            )
        )
    if (page := folder / PAGE).exists():
        print(f"Curves: {page}, and TensorBoard events in {folder / EVENTS}")
    if config["subnet"] is not None:
        print(f'Network: {folder}; nasjax.load("{folder}") reads it')
    else:
        print(f"Weights: {folder / 'supernet.safetensors'}")


def _scores(record: Mapping[str, Any]) -> Table:
    """The scores at the end: a row for each network and split."""
    rows = [[name, split, value] for name, scores in record["scores"].items() for split, value in scores.items()]
    return ("network", "split", record["metric"]), rows
