"""Measures architectures that a person names, without a search."""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from nasjax import supernets, tasks
from nasjax.space import SearchSpace
from nasjax.subject import measure, subject


def evaluate_table(config: Mapping[str, Any], archs: Path, split: str) -> tuple[list[str], list[list[Any]]]:
    """Header and rows of a CSV's architectures: genes, every metric with its standard error on `split`, every exact cost.

    Raises ValueError for a file that does not name architectures of this super-network.
    """
    net = supernets.create(seed=config["seed"], **config["supernet"])
    task = tasks.create(**config["task"]) if isinstance(net, supernets.SuperNet) else None
    about = subject(net, task, config["evaluator"])
    population = read_architectures(archs, about.space)
    if (split == "test" and about.test is None) or split not in ("validation", "test"):
        raise ValueError(f"split={split} cannot be measured here; allowed: validation{', test' if about.test else ''}")
    evaluator = about.test() if split == "test" and about.test is not None else about.evaluator
    population = population if about.repair is None else np.asarray(about.repair(population))
    found = measure(evaluator, population) | about.compute(population)
    words = [about.space.decode(arch) for arch in population]
    rows = [
        [*(chosen.get(name, "") for name in about.space.names), *(column[i].item() for column in found.values())]
        for i, chosen in enumerate(words)
    ]
    return [*about.space.names, *found], rows


def read_architectures(path: Path, space: SearchSpace) -> Int[np.ndarray, "pop genes"]:
    """The architectures of a CSV with a column for each gene (empty: switched off); other columns are passed over."""
    if not path.is_file():
        raise ValueError(f"archs={path} is not a file")
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    if not rows:
        raise ValueError(f"{path} has no rows")
    missing = [name for name in space.names if name not in rows[0]]
    if missing:
        raise ValueError(f"{path} has no column {missing[0]!r}; genes: {', '.join(space.names)}")
    options = {gene.name: {str(option): option for option in gene.options} for gene in space.genes}
    archs = []
    for line, row in enumerate(rows, 2):
        try:
            named = {name: known.get(row[name], row[name]) for name, known in options.items() if row[name]}
            archs.append(space.encode(named))
        except ValueError as error:
            raise ValueError(f"{path}, line {line}: {error}") from None
    return np.array(archs, np.int32)
