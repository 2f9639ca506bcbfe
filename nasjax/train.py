"""Trains a super-network in a folder: its weights beside a record of command, seed and accuracies."""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from nasjax import supernets, tasks
from nasjax.evaluation import EVALUATORS
from nasjax.runs import check_seed, plain, write_text
from nasjax.subject import check_fit, measure
from nasjax.tables import settings
from nasjax.training import TRAINERS
from nasjax.version import __version__


def train_run(
    path: Path, config: Mapping[str, Any], command: str, progress: Callable[[int, int, float], None]
) -> dict[str, Any]:
    """Trains as configured and writes `supernet.safetensors` and `record.json` into `path`; returns the record.

    Raises ValueError for a folder that is there already, and for settings that do not fit; nothing is then written.
    """
    if path.exists():
        raise ValueError(f"run={path} exists already; name another folder, or remove it")
    check_seed(config["seed"])
    supernet = dict(config["supernet"])
    if supernet.get("checkpoint") == "shipped":  # Training makes what is shipped: it starts from nothing.
        supernet["checkpoint"] = None
    net = supernets.create(seed=config["seed"], **supernet)
    if not isinstance(net, supernets.SuperNet):
        raise ValueError(f"supernet={supernet['name']} has no weights to train")
    task = tasks.create(**config["task"])
    check_fit(net, task)
    trainer = settings("trainer", TRAINERS, config["trainer"])
    evaluator = settings("evaluator", EVALUATORS, config["evaluator"])
    try:
        trained = trainer.train(net, task, jax.random.key(config["seed"]), progress)
    except FloatingPointError as error:
        raise ValueError(str(error)) from None
    ends = np.stack([net.space.largest(), net.space.smallest()])
    bound = evaluator.bind(trained, task)
    found = {s: measure(bound.on(s), ends)["accuracy_top1"] for s in ("validation", "test")}
    accuracies = {
        name: {split: round(float(values[i]), 2) for split, values in found.items()}
        for i, name in enumerate(("largest", "smallest"))
    }
    record = {"command": command, "seed": config["seed"], "nasjax": __version__, "jax": jax.__version__,
              "accuracies": accuracies, "settings": plain(dict(config))}  # fmt: skip
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.mkdir(parents=True)
    supernets.save_weights(trained, partial / "supernet.safetensors", {"supernet": config["supernet"]["name"]})
    write_text(partial / "record.json", json.dumps(record, indent=1) + "\n")
    os.replace(partial, path)
    return record
