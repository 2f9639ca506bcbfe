"""Measures the architectures of a CSV file, without a search: `nasjax evaluate`."""

import logging
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nasjax import supernets, tasks
from nasjax.errors import FAILURE, ConfigError
from nasjax.evaluation.base import by_chunk, joined
from nasjax.jax_defaults import with_jax_defaults
from nasjax.runs.csv_io import read_architectures
from nasjax.searches.problem import search_problem

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class EvaluationProgress:
    """`done` of `planned` architectures are measured; the last one's first metric is `value`."""

    done: int
    planned: int
    value: float


@with_jax_defaults
def evaluating_table(
    config: Mapping[str, Any], archs: Path, split: str
) -> Generator[EvaluationProgress, None, tuple[list[str], list[list[Any]]]]:
    """Header and rows of a table: the genes of each architecture, its metrics with standard errors on `split`, exact costs.

    Yields progress after every chunk. `archs` is a CSV with one column a gene. Raises ConfigError where it does not name
    architectures of the super-network.
    """
    net = supernets.create(seed=config["seed"], **config["supernet"])
    task = tasks.create(**config["task"]) if isinstance(net, supernets.SuperNet) else None
    # Without successive halving: every network is measured on all images.
    evaluator = config["evaluator"] and {**config["evaluator"], "first_examples": 0}
    population, _, _ = read_architectures("archs", archs, net.space)
    problem = search_problem(net, task, evaluator, networks=len(population))
    if (split == "test" and problem.test is None) or split not in ("validation", "test"):
        raise ConfigError(f"split={split} cannot be measured here; allowed: validation{', test' if problem.test else ''}")
    evaluator = problem.test() if split == "test" and problem.test is not None else problem.evaluator
    population = population if problem.repair is None else np.asarray(problem.repair(population))
    if warning := problem.warning(problem.measurable):
        LOG.warning(warning)
    chunks, done = [], 0
    for chunk in by_chunk(evaluator, population):
        first = next(iter(chunk.values()))
        chunks.append(chunk)
        done += len(first)
        yield EvaluationProgress(done, len(population), float(first[-1]))
    metrics = joined(chunks) | problem.compute(population)
    metrics.pop(FAILURE, None)  # Evaluators that know it have printed it.
    choices = [problem.space.decode(arch) for arch in population]
    rows = [
        [*(chosen.get(name, "") for name in problem.space.names), *(column[i].item() for column in metrics.values())]
        for i, chosen in enumerate(choices)
    ]
    return [*problem.space.names, *metrics], rows
