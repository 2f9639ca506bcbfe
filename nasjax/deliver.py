"""Hands a network of a finished run over: sliced out, checked against the super-network, written."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from nasjax import supernets, tasks
from nasjax.archive import Archive, digest
from nasjax.evaluation import EVALUATORS
from nasjax.evaluation.resolution import resized
from nasjax.extract import extract, load, save_network
from nasjax.report import read_run
from nasjax.runs import read_settings
from nasjax.supernets import SuperNet
from nasjax.tables import settings

TOLERANCE = 1e-4
"""The largest difference between the masked super-network and the extracted network, of the largest logit (at least 1)."""


@dataclass(frozen=True)
class Delivered:
    """What was handed over: index in the run, choices in words, how far its logits are from the super-network's."""

    index: int
    words: str
    difference: float
    images: int
    folder: Path


def deliver(run: Path, network: int | None = None, out: Path | None = None) -> Delivered:
    """Extracts evaluation `network` of a run (None: the first of its front) into `out` (None: in the run's `subnets/`).

    Its batch norms are re-calibrated as they were when it was measured. Raises ValueError for what a person can put right.
    """
    index, arch = _chosen(run, network)
    config = read_settings(run)
    if config["task"] is None:
        raise ValueError(f"run={run} searched a table: it has no networks to extract")
    target = out or run / "subnets" / str(index)
    if target.exists():
        raise ValueError(f"out={target} exists already; name another folder, or remove it")
    net = supernets.create(seed=config["seed"], **config["supernet"])
    task = tasks.create(**config["task"])
    evaluator_config = settings("evaluator", EVALUATORS, config["evaluator"])
    evaluator = evaluator_config.bind(net, task)
    if digest(evaluator.context) != json.loads((run / "run.json").read_text())["context"]:
        raise ValueError(f"run={run} was measured with other weights or data than are there now: put those back")
    statistics = evaluator.statistics(arch)
    extracted = extract(net, arch, statistics)

    partial = target.with_name(f".{target.name}.{os.getpid()}")
    partial.mkdir(parents=True)
    try:
        save_network(extracted, config["supernet"], arch, partial)
        pictures = resized(jnp.asarray(task.validation.images[: evaluator_config.batch]), net.resolution(arch))
        traced = jnp.asarray(arch, jnp.int32)
        wanted = _answers(net, lambda net: net.forward(pictures, traced, statistics)[0])
        difference = float(np.abs(wanted - _answers(load(partial), lambda net: net(pictures))).max())
        if not difference <= TOLERANCE * max(1.0, np.abs(wanted).max()):
            raise RuntimeError(
                f"network {index} answers differently once extracted (by {difference:.1e}): please report this"
            )
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(partial, target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    words = ", ".join(f"{name}={value}" for name, value in net.space.decode(np.array(arch, np.int32)).items())
    return Delivered(index, words, difference, len(pictures), target)


def _answers(net: SuperNet, forward: Callable[[SuperNet], jax.Array]) -> np.ndarray:
    """What a network answers, compiled, its weights no constants of the program."""
    graph, weights = nnx.split(net)
    return np.asarray(jax.jit(lambda weights: forward(nnx.merge(graph, weights)))(weights))


def _chosen(run: Path, network: int | None) -> tuple[int, tuple[int, ...]]:
    """Index and architecture of an evaluation of a finished run."""
    finished = read_run(run)
    if network is None:
        if not finished.front:
            raise ValueError(f"run={run} has no front: every evaluation failed")
        network = finished.front[0].index
    place = Path(read_settings(run)["archive"] or run / "archive.db")
    if not place.is_file():
        raise ValueError(f"run={run} has its measurements in {place}, which is not there")
    store = Archive(place, json.loads((run / "run.json").read_text())["id"])
    try:
        rows = {row.position: row.arch for row in store.evaluations()}
    finally:
        store.close()
    if network not in rows:
        raise ValueError(f"network={network} is not in run={run}, which has evaluations 0 to {len(rows) - 1}")
    return network, rows[network]
