"""What a search costs follows from what was measured, whatever budget is planned."""

import csv
import itertools
import json
from dataclasses import dataclass

import jax
import numpy as np
import pytest
from tables import GENES, write_table

import nasjax
from nasjax import supernets
from nasjax.algorithms import NSGA2
from nasjax.algorithms.evolve import evolve
from nasjax.objectives import parse_goals
from nasjax.pareto import non_dominated_exact
from nasjax.predictors import GaussianProcess, Ridge
from nasjax.searches import loop
from nasjax.searches.problem import search_problem
from nasjax.searches.tactic_problem import tactic_problem
from nasjax.tactics import Ehvi, Random
from nasjax.tactics.base import LEAST_LENGTH, Measured, padded_measurements, relevant_rows
from nasjax.tactics.ehvi import _candidate_pool
from nasjax.tactics.improvement import choose
from nasjax.tactics.predicting import fit_predictors

GOALS = ("max:acc", "min:cost")
PROCESS = GaussianProcess(steps=2, rows=16)
BILLION = 1_000_000_000


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A table of 30^3 networks: too many to be predicted all."""
    path = tmp_path_factory.mktemp("large") / "table.csv"
    a, b, c = np.array(list(itertools.product(range(30), repeat=3))).T
    columns = (a, b, c, 50 + 20 * np.tanh((a + b + c) / 40) + np.sin(a) + np.cos(b * c), a + 2 * b + c + np.sin(a * b))
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("a", "b", "c", "acc", "cost"), *zip(*(col.tolist() for col in columns), strict=True)])
    return supernets.create("tabular", table=str(path), genes=("a", "b", "c"))


def state_of(net, evaluations, tactic, predictor=PROCESS, constraints=()):
    """The first state of a tactic, and a function that measures."""
    problem = search_problem(net, None)
    goals = parse_goals(GOALS, constraints, problem.measurable)
    chosen = tactic_problem(problem, goals, NSGA2(population=8), predictor, evaluations)
    return tactic.init(jax.random.key(0), chosen), lambda archs: goals.minimised(net(archs))


def steps(net, evaluations, number):
    """What `number` steps of the default tactic ask for, and the number of programs that are compiled then."""
    tactic = Ehvi(start=4, batch=3, generations=3, greedy=10)
    state, measure = state_of(net, evaluations, tactic)
    asked = []
    for _ in range(number):
        archs, state = tactic.ask(state)
        asked.append(archs)
        state = tactic.tell(state, archs, measure(archs))
    jitted = (GaussianProcess.fit, GaussianProcess.predict, evolve, choose, _candidate_pool)
    return np.concatenate(asked), [each._cache_size() for each in jitted]


@pytest.mark.slow
def test_the_planned_budget_changes_neither_what_is_asked_for_nor_what_is_compiled(large):
    small, programs = steps(large, 64, 10)
    for budget in (3000, BILLION):
        asked, compiled = steps(large, budget, 10)
        np.testing.assert_array_equal(asked, small)
        assert compiled == programs


@dataclass(frozen=True)
class Watched(Ridge):
    """Ridge regression that is fitted to at most 64 rows, and notes the rows of each fit."""

    max_rows = 64
    fitted = []  # noqa: RUF012

    def fit(self, inputs, archs, values, mask=None):
        self.fitted.append((len(archs), np.asarray(mask).sum(), {arch.tobytes() for arch in archs[mask]}))
        return super().fit(inputs, archs, values, mask)


def test_a_predictor_gets_no_more_rows_than_it_bears_and_the_front_among_them(large):
    tactic = Random()
    state, measure = state_of(large, BILLION, tactic, Watched())
    archs = large.archs[np.random.default_rng(0).permutation(len(large.archs))[:700]]
    values = measure(archs)
    Watched.fitted.clear()
    for few in np.split(np.arange(700), [40, 100, 300]):
        state = tactic.tell(state, archs[few], values[few])
        fit_predictors(state)
    assert [valid for _, valid, _ in Watched.fitted] == [40, 40, *[64] * 6]
    assert {length for length, _, _ in Watched.fitted} == {LEAST_LENGTH}
    front = archs[non_dominated_exact(values)]
    assert {arch.tobytes() for arch in front} <= Watched.fitted[-1][2] and len(front) <= 32


def test_of_many_measurements_the_best_the_last_and_a_spread_of_the_others_matter(large):
    state, measure = state_of(large, 1000, Random(), constraints=["acc<=65"])
    archs = large.archs[np.random.default_rng(1).permutation(len(large.archs))[:500]]
    values = measure(archs)
    values[::7] = np.nan
    state = state.add(archs, values)
    rows = relevant_rows(state, 100)
    assert len(rows) == len(set(rows.tolist())) == 100 and (np.diff(rows) > 0).all()
    valid = np.flatnonzero(np.isfinite(values[:, 0]))
    assert set(rows.tolist()) <= set(valid.tolist())
    assert set(valid[-25:].tolist()) <= set(rows.tolist())
    assert set(np.flatnonzero(non_dominated_exact(state.objectives)).tolist()) <= set(rows.tolist())
    assert np.diff(rows).max() < 60
    assert relevant_rows(state, 500).tolist() == list(range(500))


def test_batches_grow_with_the_archive_since_a_step_costs_more():
    assert [Ehvi().batch_after(measured) for measured in (20, 512, 513, 1025, 20_000)] == [5, 5, 10, 20, 40]
    assert [Ehvi(batch=16).batch_after(measured) for measured in (512, 513, 4000)] == [16, 32, 40]
    assert Ehvi(batch=64).batch_after(4000) == 64


@pytest.mark.parametrize(("measured", "length"), [(0, 128), (128, 128), (129, 256), (1000, 1024)])
def test_measurements_are_padded_to_a_power_of_two_of_their_number(large, measured, length):
    state, measure = state_of(large, 64, Random())
    archs = large.archs[:measured]
    padded, values = padded_measurements(state.add(archs, measure(archs)) if measured else state)
    assert padded.shape == (length, 3) and values.shape == (length, 2)
    assert np.isfinite(values).all(1).sum() == measured


TACTICS = {
    "random": {"population": 16},
    "ehvi": {"start": 8, "batch": 16},
    "full_on_estimations": {"sample": 50, "generations": 1},
}


@pytest.mark.parametrize("tactic", TACTICS)
def test_a_budget_of_a_thousand_million_ends_when_the_space_is_exhausted(tactic, tmp_path):
    net = supernets.create("tabular", table=write_table(tmp_path / "table.csv"), genes=GENES)
    nasjax.search(net, objectives=GOALS, tactic={"name": tactic, **TACTICS[tactic]}, predictor="ridge", evaluations=BILLION,
                  run=tmp_path / "run")  # fmt: skip
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["evaluations"] == len(net.archs) and summary["complete"]


def test_a_step_that_took_longer_than_the_minutes_is_not_measured(large, tmp_path, monkeypatch):
    """And the search that goes on then measures what an uninterrupted one does."""
    now, ask = [0.0], Random.ask

    def slow(self, state: Measured):
        now[0] += 25
        return ask(self, state)

    monkeypatch.setattr(Random, "ask", slow)
    monkeypatch.setattr(loop.time, "monotonic", lambda: now[0])

    def measured(run, **more):
        nasjax.search(large, objectives=GOALS, tactic={"name": "random", "population": 4}, evaluations=16, run=run, **more)
        with (run / "evaluations.csv").open() as file:
            return [[row[name] for name in ("index", "step", "a", "b", "c")] for row in csv.DictReader(file)]

    assert len(measured(tmp_path / "run", minutes=1)) == 8
    assert measured(tmp_path / "run") == measured(tmp_path / "whole")


def test_a_search_interrupted_where_its_arrays_grow_ends_as_an_uninterrupted_one(large, tmp_path):
    def searching(run):
        settings = {"name": "ehvi", "start": 120, "batch": 12, "generations": 2}
        return nasjax.searching(large, objectives=GOALS, tactic=settings, predictor="ridge", evaluations=144, run=run)

    def evaluated(run):
        lines = (run / "evaluations.csv").read_bytes().splitlines()
        return [line.rpartition(b",")[0] for line in lines], (run / "pareto.csv").read_bytes()

    for _ in searching(tmp_path / "whole"):
        pass
    for progress in searching(tmp_path / "run"):
        if progress.done >= 132:
            break
    for _ in searching(tmp_path / "run"):
        pass
    assert evaluated(tmp_path / "run") == evaluated(tmp_path / "whole")
