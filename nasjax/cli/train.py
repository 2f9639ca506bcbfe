"""`nasjax train`: trains a super-network, or a network that was extracted."""

import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nasjax.cli.compose import configuration
from nasjax.cli.console import prepare_jax
from nasjax.cli.failures import naming_full_disk
from nasjax.cli.options import Arguments
from nasjax.errors import ConfigError
from nasjax.progress import ProgressBar
from nasjax.report.training import write_training_page
from nasjax.runs.folder import new_path
from nasjax.training.run import train_run
from nasjax.training.watch import CURVES, EVENTS


def train(arguments: Arguments) -> int:
    """Runs `nasjax train`."""
    config = configuration("train", arguments.settings)
    prepare_jax()
    kind = "subnet" if config["subnet"] is not None else config["supernet"]["name"]
    folder = Path(config.pop("run") or new_path(f"train-{kind}"))
    run_training(folder, config, arguments.settings)
    return 0


def run_training(folder: Path, config: Mapping[str, Any], words: Sequence[str], label: str = "") -> None:
    """Trains as configured, shows progress (see `ProgressBar` for the `label`) and prints scores and files.

    `words` are the settings as they were given.
    """
    if config["subnet"] is not None and any(re.match(r"supernet[.=]", word) for word in words):
        raise ConfigError(f"subnet={config['subnet']} says what is trained: leave supernet= out")
    command = " ".join(["nasjax train", *(word for word in words if not word.startswith("run="))])
    resume = f"the same command with run={folder}"
    try:
        with naming_full_disk(resume), ProgressBar("epochs", "loss", label=label) as bar:
            alone = ProgressBar("trained alone", "metric", label=label)
            record = train_run(folder, config, command, bar.update, alone.update)
    except KeyboardInterrupt:
        print(f"Stopping: what was trained is stored; {resume} goes on", file=sys.stderr)
        raise
    for name, scores in record["scores"].items():
        print(f"{name}: {record['metric']} " + ", ".join(f"{split} {value:.4g}" for split, value in scores.items()))
    if ranking := record.get("ranking"):
        print(
            "ranking: Kendall's tau {kendall_tau} +- {standard_error} of {networks} networks trained alone".format(**ranking)
        )
    if (folder / CURVES).exists():
        print(f"Curves: {write_training_page(folder)}, and TensorBoard events in {folder / EVENTS}")
    if config["subnet"] is not None:
        print(f'Network: {folder}; nasjax.load("{folder}") reads it')
    else:
        print(f"Weights: {folder / 'supernet.safetensors'}")
