"""Hands a network of a finished run over."""

import json
from pathlib import Path

from nasjax import supernets, tasks
from nasjax.archive import Archive, digest
from nasjax.deliver import Extracted, deliver
from nasjax.evaluation import EVALUATORS
from nasjax.report import read_run
from nasjax.runs import read_settings
from nasjax.tables import settings


def extract_run(run: Path, network: int | None = None, out: Path | None = None) -> tuple[int, Extracted, Path]:
    """Writes evaluation `network` of a run (None: the first of its front) into `out` (None: the run's `subnets/`).

    Returns its index, the network and the folder. Raises ValueError for what a person can put right.
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
    evaluation = settings("evaluator", EVALUATORS, config["evaluator"])
    evaluator = evaluation.bind(net, task)
    if digest(evaluator.context) != json.loads((run / "run.json").read_text())["context"]:
        raise ValueError(f"run={run} was measured with other weights or data than are there now: put those back")
    extracted = deliver(net, evaluator, arch, task.validation.images[: evaluation.batch])
    return index, extracted, extracted.save(target)


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
