"""Warm starts begin with the best of an earlier search, whatever form it has; what does not fit is one line."""

import csv

import numpy as np
import pytest
from tables import GENES, write_table

import nasjax
from nasjax.cli import main
from nasjax.objectives import Goals, parse_constraints, parse_objectives
from nasjax.pareto import non_dominated_sort
from nasjax.subject import subject
from nasjax.tactics import TACTICS
from nasjax.warm import warm_start

SETTINGS = {"full_on_estimations": {"sample": 20}, "weaknas": {"first": 16, "batch": 10, "top": 20}, "ehvi": {"start": 16}}


@pytest.fixture(scope="module")
def net(tmp_path_factory):
    return nasjax.supernets.create("tabular", table=write_table(tmp_path_factory.mktemp("t") / "table.csv"), genes=GENES)


@pytest.fixture(scope="module")
def earlier(net, tmp_path_factory):
    """A run folder: 40 random networks, accuracy against cost."""
    path = tmp_path_factory.mktemp("earlier")
    nasjax.search(net, objectives=["max:acc", "min:cost"], tactic="random", evaluations=40, run=path / "run",
                  archive=path / "shared.db")  # fmt: skip
    return path


def begin(place, net, objectives, constraints=()):
    about = subject(net, None)
    goals = Goals(parse_objectives(objectives, about.ranges, {}), parse_constraints(constraints, about.ranges))
    return warm_start(place, about, goals, net)


def measured(path):
    with (path / "evaluations.csv").open() as file:
        return list(csv.DictReader(file))


def encoded(net, row):
    return net.space.encode({g: int(row[g]) for g in GENES if row[g]}).tolist()


@pytest.mark.parametrize("place", ["run", "run/evaluations.csv", "shared.db"])
def test_every_form_gives_the_same_networks_best_first(net, earlier, place):
    warm = begin(earlier / place, net, ["max:acc", "min:cost"])
    assert len(warm.archs) == 40
    values = net(warm.archs)
    np.testing.assert_allclose(warm.values, np.stack([-values["acc"], values["cost"]], 1))
    ranks = np.asarray(non_dominated_sort(warm.values))
    assert (np.diff(ranks) >= 0).all()


def test_the_new_objectives_and_constraints_decide_what_is_best(net, earlier):
    warm = begin(earlier / "run", net, ["min:width"], ["acc>=85"])
    kept = warm.values[:, 1] >= 85
    assert kept.any() and kept[: kept.sum()].all()
    assert (np.diff(warm.values[kept, 0]) >= 0).all()


def test_where_nothing_was_measured_of_the_new_objectives_the_old_front_comes_first(net, earlier, tmp_path):
    table = tmp_path / "table.csv"
    with (earlier / "run" / "evaluations.csv").open() as file:
        rows = [{**{g: row[g] for g in GENES}, "other": row["acc"]} for row in csv.DictReader(file)]
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    other = nasjax.supernets.create("tabular", table=str(table), genes=GENES)
    warm = begin(earlier / "run", other, ["max:other"])
    with (earlier / "run" / "pareto.csv").open() as file:
        front = [encoded(net, row) for row in csv.DictReader(file)]
    assert warm.archs[: len(front)].tolist() == front
    assert np.isnan(warm.values).all()


@pytest.mark.parametrize("tactic", [name for name in TACTICS if name != "proxy"])
def test_every_tactic_measures_the_best_of_the_earlier_search_first(net, earlier, tactic, tmp_path):
    warm = begin(earlier / "run", net, ["max:acc", "min:cost"])
    nasjax.search(net, objectives=["max:acc", "min:cost"], tactic={"name": tactic, **SETTINGS.get(tactic, {})},
                  evaluations=24, run=tmp_path / "run", warm_start=earlier / "run")  # fmt: skip
    found = [encoded(net, row) for row in measured(tmp_path / "run")][:16]
    assert sorted(found) == sorted(warm.archs[:16].tolist())


def test_what_cannot_be_a_warm_start_is_one_line(net, earlier, tmp_path, capsys):
    table = write_table(tmp_path / "table.csv")
    words = ["search", "supernet=tabular", f"supernet.table={table}", "supernet.genes=[d,a,b,c,e]", "evaluations=20",
             "objectives=[max:acc,min:cost]", f"run={tmp_path / 'run'}"]  # fmt: skip
    (tmp_path / "other.csv").write_text("x,acc\n1,2\n")
    (tmp_path / "none.csv").write_text("d,a,b,c,e,acc\n9,9,9,9,9,1\n")
    (tmp_path / "dynast.csv").write_text("Sub-network,Date,Model Parameters,Latency (ms),MACs,Top-1 Acc (%)\n")
    for place, said in {
        "missing": "there is no such file or folder",
        ".": "is not a finished run",
        "other.csv": "has no column 'd'",
        "none.csv": "has no architecture of this search space",
        "dynast.csv": "needs one of Once-for-All's",
    }.items():
        assert main([*words, f"warm_start={tmp_path / place}"]) == 2
        error = capsys.readouterr().err
        assert said in error and error.count("\n") == 1
    assert not (tmp_path / "run").exists()
