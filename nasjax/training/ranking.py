"""How a super-network ranks its sub-networks, against the same architectures trained alone: what it is for.

Each architecture is trained alone on the targets, from new weights and by the same optimiser, as part of the super-network's
arrays: its weights are masked, so that one program trains them all. Compared with a network that was extracted before it was
trained, initial weights are those of the wider layers.
"""

import csv
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from nasjax.errors import naming_damage
from nasjax.evaluation import EvaluatorConfig, measure
from nasjax.host import read_text
from nasjax.runs.folder import write_table
from nasjax.supernets import SuperNet
from nasjax.tasks import Task
from nasjax.training.base import Phase, Step, Subnets, TrainerConfig
from nasjax.training.loop import Training
from nasjax.types import Population, PRNGKey

RANKING = "ranking.csv"

RESAMPLES = 1000
"""Resamples of the networks, for the standard error of their rank correlation."""


@dataclass(frozen=True)
class AloneConfig(TrainerConfig):
    """Trains one sub-network, which is given as the phase's `least`: a value of the program, not a part of it."""

    def subnets(self, step: Step) -> Subnets:
        return Subnets((), (), step.least[None], None, (1.0,))


def drawn_archs(net: SuperNet, number: int, key: PRNGKey) -> Population:
    """Distinct random architectures, uniform over all; fewer where there are not so many. The host genes are the largest's.

    A sub-network alone is trained at every option of a host gene.
    """
    found: dict[bytes, Any] = {}
    for i in range(10):
        archs = np.array(net.space.sample(jax.random.fold_in(key, i), 4 * number))
        archs[:, list(net.host_columns())] = net.space.largest()[list(net.host_columns())]
        found |= {arch.tobytes(): arch for arch in archs}
    return np.stack(list(found.values())[:number])


def train_alone(
    config: TrainerConfig, fresh: SuperNet, task: Task, archs: Population, key: PRNGKey, epochs: int
) -> Callable[[int], SuperNet]:
    """A function that trains architecture number `i` of `archs` alone for so many epochs, and returns the network.

    The optimiser's settings and the batch are those of `config`; `fresh` has the new weights.
    """
    shared = {field.name: getattr(config, field.name) for field in fields(TrainerConfig)}
    training = Training(AloneConfig(**{**shared, "epochs": epochs}), fresh, task, key)

    def trained(i: int) -> SuperNet:
        training.phases = (Phase(epochs, 1.0, tuple(map(int, archs[i]))),)  # One program for all.
        state = training.begin()
        for after in training.run(state):
            state = after
        return training.unscored(state)

    return trained


def rank(
    path: Path,
    archs: Population,
    net: SuperNet,
    alone: Callable[[int], SuperNet],
    evaluator: EvaluatorConfig,
    task: Task,
    progress: Callable[[int, int, float], None],
) -> dict[str, Any]:
    """Kendall's tau between the metrics of sub-networks and of the same trained alone, on validation examples.

    Each network alone is a row of the table `path`; those that are there already are not trained again. `progress` is
    called with the number done, of how many, and the metric alone. Raises ConfigError for a table of other networks.
    """
    metric = task.objectives[0].name
    bound = evaluator.bind(net, task).on("validation")
    of_supernet = measure(bound, archs)[metric]
    heads = [*(gene.name for gene in net.space.genes), metric, f"{metric}_alone"]
    before = _read_ranking(path, heads, archs)
    rows = [[*map(int, arch), float(value)] for arch, value in zip(archs, of_supernet, strict=True)]
    alone_values = before
    for i in range(len(before), len(archs)):
        alone_values.append(float(measure(bound.reweighted(alone(i)), archs[i : i + 1])[metric][0]))
        write_table(path, heads, [[*row, value] for row, value in zip(rows, alone_values, strict=False)])
        progress(i + 1, len(archs), alone_values[-1])
    tau, error = rank_correlation(of_supernet, np.array(alone_values))
    return {"networks": len(archs), "kendall_tau": round(tau, 4), "standard_error": round(error, 4)}


def _read_ranking(path: Path, heads: list[str], archs: Population) -> list[float]:
    """The metrics of the first architectures alone, of a table that is there already.

    Raises ConfigError for a table of other networks, and for one that no training has written.
    """
    if not path.exists():
        return []
    with naming_damage(path, "remove it, and the same command makes it anew"):
        first, *rows = csv.reader(read_text(path).splitlines())
        if first != heads or any(row[: len(arch)] != [*map(str, arch)] for row, arch in zip(rows, archs, strict=False)):
            raise ValueError("it is of other networks")
        return [float(row[len(heads) - 1]) for row in rows[: len(archs)]]


def rank_correlation(first: Float[np.ndarray, " n"], second: Float[np.ndarray, " n"]) -> tuple[float, float]:
    """Kendall's tau-b and its standard error, by resampling pairs (seed 0); NaN where all of one side are equal."""
    from scipy.stats import kendalltau  # Takes a second.

    rng = np.random.default_rng(0)
    rows = rng.integers(len(first), size=(RESAMPLES, len(first)))
    again = [kendalltau(first[some], second[some]).statistic for some in rows]
    return float(kendalltau(first, second).statistic), float(np.nanstd(again))
