"""`search_seeds` evaluates the same architectures as one search a seed."""

import csv
import json

import jax
import numpy as np
import pytest
from tables import GENES, write_table

import nasjax
from nasjax.algorithms import NSGA2
from nasjax.objectives import parse_goals
from nasjax.predictors import Ridge
from nasjax.searches.problem import search_problem
from nasjax.searches.tactic_problem import tactic_problem
from nasjax.tactics import Concurrent

GOALS = ["max:acc", "min:cost"]
TACTICS = {
    "random": {"population": 8},
    "full": {"population": 8},
    "concurrent": {"population": 6, "generations": 5},
}


@pytest.fixture(scope="module")
def net(tmp_path_factory):
    return nasjax.supernets.create("tabular", table=write_table(tmp_path_factory.mktemp("t") / "table.csv"), genes=GENES)


def arguments(tactic, constraints=("width<=90",)):
    """A constraint, and a budget near the size of the space, so that few new architectures are left."""
    return {"objectives": GOALS, "constraints": constraints, "tactic": {"name": tactic, **TACTICS[tactic]},
            "algorithm": {"name": "nsga2", "population": 10}, "predictor": "ridge", "evaluations": 60}  # fmt: skip


@pytest.mark.parametrize("tactic", ["random", "full"])
def test_each_seed_evaluates_the_same_as_its_search(net, tactic, tmp_path):
    seeds = (3, 0)
    runs = nasjax.search_seeds(net, seeds, **arguments(tactic))
    assert runs.archs.shape == (2, 60, len(GENES))
    for i, seed in enumerate(seeds):
        folder = tmp_path / str(seed)
        nasjax.search(net, **arguments(tactic), seed=seed, run=folder)
        with (folder / "evaluations.csv").open() as file:
            found = [net.space.encode({g: int(row[g]) for g in GENES if row[g]}).tolist() for row in csv.DictReader(file)]
        assert runs.archs[i].tolist() == found
        summary = json.loads((folder / "summary.json").read_text())
        np.testing.assert_allclose(runs.hypervolumes[i], summary["hypervolume"], rtol=1e-9)
    assert (np.diff(runs.hypervolumes, axis=1) >= 0).all() and (runs.archs[0] != runs.archs[1]).any()


@pytest.mark.slow
def test_the_vmapped_concurrent_tactic_asks_for_mostly_the_same_architectures(net):
    """Step by step, from the same evaluations: vmapped fits round differently, which decides near ties differently."""
    chosen = arguments("concurrent")
    seeds, shared = (3, 0, 1, 2), 0
    runs = nasjax.search_seeds(net, seeds, **chosen)
    problem = search_problem(net, None)
    goals = parse_goals(GOALS, chosen["constraints"], problem.measurable)
    for_tactic = tactic_problem(problem, goals, NSGA2(population=10), Ridge(), 60)
    tactic = Concurrent(**TACTICS["concurrent"])
    for seed, archs, values in zip(seeds, runs.archs, runs.values, strict=True):
        state, same = tactic.init(jax.random.key(seed), for_tactic), []
        for i in range(0, 60, 6):
            asked, state = tactic.ask(state)
            same.append(len(set(map(bytes, asked)) & set(map(bytes, archs[i : i + 6]))))
            state = tactic.tell(state, archs[i : i + 6], values[i : i + 6])
        assert same[0] == 6
        assert len(np.unique(archs, axis=0)) == 60
        shared += sum(same)
    assert shared >= 0.7 * 60 * len(seeds)


@pytest.mark.parametrize("tactic", ["random", "full"])
def test_the_whole_space_is_measured_where_the_budget_allows(net, tactic):
    runs = nasjax.search_seeds(net, [0, 1], objectives=GOALS, tactic={"name": tactic, **TACTICS[tactic]},
                               evaluations=net.space.size)  # fmt: skip
    for archs in runs.archs:
        assert set(map(bytes, archs)) == set(map(bytes, net.archs))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"tactic": "ehvi"}, "many seeds at once support the tactics random, full, concurrent, not ehvi"),
        ({"predictor": "svr"}, r"fitted inside jit \(ridge, gaussian_process, mlp\), not svr"),
        ({"evaluations": 10_000}, "evaluations=10000 must not exceed the"),
        ({"seeds": []}, "seeds must name at least one seed"),
    ],
)
def test_unsupported_arguments_are_refused_in_one_line(net, changes, words):
    seeds = changes.pop("seeds", [0])
    with pytest.raises(ValueError, match=words):
        nasjax.search_seeds(net, seeds, objectives=GOALS, **changes)


def test_incomplete_tables_are_refused(net, tiny_net, tmp_path):
    with pytest.raises(ValueError, match="needs a table"):
        nasjax.search_seeds(tiny_net, [0], objectives=GOALS)
    failed = nasjax.supernets.create("tabular", table=write_table(tmp_path / "table.csv", bad=(5,)), genes=GENES)
    with pytest.raises(ValueError, match="complete table without failed networks"):
        nasjax.search_seeds(failed, [0], objectives=GOALS)
