"""Trains a super-network or an extracted network; writes a folder of weights and a record of settings and scores."""

import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax

from nasjax import supernets, tasks
from nasjax.errors import ConfigError
from nasjax.evaluation import EVALUATORS, EvaluatorConfig, measure
from nasjax.host import new_place, write_text
from nasjax.jax_defaults import with_jax_defaults
from nasjax.registry import settings
from nasjax.runs.folder import check_seed, plain_data
from nasjax.runs.inputs import absolute_inputs
from nasjax.supernets import SuperNet
from nasjax.supernets.folders import load, read_facts, save_network
from nasjax.tasks import Task
from nasjax.training import TRAINERS
from nasjax.types import Arch
from nasjax.version import __version__


@with_jax_defaults
def train_run(
    path: Path, config: Mapping[str, Any], command: str, progress: Callable[[int, int, float], None]
) -> dict[str, Any]:
    """Trains as configured and writes weights and `record.json` into `path`; returns the record.

    A super-network's weights are `supernet.safetensors`; an extracted network (`config["subnet"]`) is written as a
    folder for `nasjax.load`. Where scoring fails, the weights are written all the same. Raises ConfigError, without writing
    anything, if the folder exists or settings are invalid.
    """
    new_place(f"run={path}", path, "folder")
    check_seed(config["seed"])
    net = _network(config)
    task = tasks.create(**config["task"])
    task.check(net)
    trainer = settings("trainer", TRAINERS, config["trainer"])
    evaluator = settings("evaluator", EVALUATORS, config["evaluator"])
    if advice := trainer.advice(net):
        print(f"nasjax: {advice}", file=sys.stderr)
    try:
        trained = trainer.train(net, task, jax.random.key(config["seed"]), progress)
    except FloatingPointError as error:
        raise ConfigError(str(error)) from None
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.mkdir(parents=True)
    if config["subnet"] is None:
        trained.facts = {"supernet": config["supernet"]["name"], **task.facts()}
        supernets.save_weights(trained, partial / "supernet.safetensors", dict(trained.facts))
    else:
        trained.facts = {**net.facts, **task.facts()}
        saved = read_facts(config["subnet"])
        save_network(trained, saved["supernet"], saved["arch"], partial)
    for name, content in task.files().items():
        (partial / name).write_bytes(content)
    record: dict[str, Any] = {
        "command": command, "seed": config["seed"], "nasjax": __version__, "jax": jax.__version__,
        "metric": task.objectives[0].name, "signatures": dict(task.signatures), "scores": {},
        "settings": plain_data(absolute_inputs(config)),
    }  # fmt: skip
    if config["subnet"] is None:
        ends = {"largest": (trained, net.space.largest()), "smallest": (trained, net.space.smallest())}
    else:
        ends = {"before": (net, net.space.smallest()), "after": (trained, net.space.smallest())}
    try:
        for name, (network, arch) in ends.items():
            record["scores"][name] = _scores(evaluator, network, task, arch)
    finally:  # Training has taken long: what it made is kept where scoring fails or is interrupted.
        write_text(partial / "record.json", json.dumps(record, indent=1) + "\n")
        os.replace(partial, path)
    return record


def _network(config: Mapping[str, Any]) -> SuperNet:
    """The network to be trained: the super-network, or the extracted network in the folder `subnet`."""
    if config["subnet"] is not None:
        return load(config["subnet"])
    supernet = dict(config["supernet"])
    if supernet.get("checkpoint") == "shipped":  # Training starts from random weights.
        supernet["checkpoint"] = None
    net = supernets.create(seed=config["seed"], **supernet)
    if not isinstance(net, SuperNet):
        raise ConfigError(f"supernet={supernet['name']} has no weights to train")
    return net


def _scores(evaluator: EvaluatorConfig, net: SuperNet, task: Task, arch: Arch) -> dict[str, float]:
    """The task's first metric of a re-calibrated architecture, by split."""
    bound = evaluator.bind(net, task)
    metric, splits = task.objectives[0].name, ("validation", "test")
    return {split: round(measure(bound.on(split), arch[None])[metric].item(), 4) for split in splits}
