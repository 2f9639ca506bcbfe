"""Searches of five and six objectives, of integer and categorical genes, in large batches: they end with exact volumes."""

import csv
import itertools

import moocore
import numpy as np
import pytest

import nasjax
from nasjax import supernets

NAMES = ("a", "b", "c", "e", "f", "g")


@pytest.fixture
def net(tmp_path):
    """No network dominates another in six objectives, as noise makes it: fronts are as large as they can be."""
    rng = np.random.default_rng(0)
    rows = list(itertools.product((2, 3, 4, 5, 6), (3, 5, 7), ("x", "y", "z", "w")))
    values = np.abs(rng.normal(size=(len(rows), len(NAMES))))
    values = 2 - values / np.linalg.norm(values, axis=1, keepdims=True)
    with (tmp_path / "table.csv").open("w", newline="") as file:
        csv.writer(file).writerows(
            [("d", "k", "op", *NAMES), *([*r, *v] for r, v in zip(rows, values.tolist(), strict=True))]
        )
    return supernets.create("tabular", table=str(tmp_path / "table.csv"), genes=("d", "k", "op"))


@pytest.mark.parametrize("number", [5, pytest.param(6, marks=pytest.mark.slow)])
def test_a_search_of_many_objectives_ends_with_the_hypervolume_of_its_front(net, number):
    goals = [f"min:{name}" for name in NAMES[:number]]
    front = nasjax.search(net, objectives=goals, evaluations=50, tactic={"name": "ehvi", "batch": 20})
    values = np.column_stack([front.metrics[name] for name in NAMES[:number]])
    assert len(values) > 40
    wanted = moocore.hypervolume(values, ref=net.values[:, :number].max(0))
    assert front.hypervolume == pytest.approx(wanted, rel=1e-9)
