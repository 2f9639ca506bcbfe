"""Constraints: hard in every front, whatever the tactic; one objective within them gives the best network."""

import csv
import json

import numpy as np
import pytest
from tables import GENES, brute_front, write_table

import nasjax
from nasjax.cli import main
from nasjax.objectives import measurable, parse_goals
from nasjax.tactics import TACTICS
from nasjax.tasks import OBJECTIVES

RANGES = {"acc": (0.0, 100.0), "cost": (0.0, 200.0), "width": (0.0, 300.0)}


def goals(objectives, constraints):
    return parse_goals(objectives, constraints, measurable(RANGES, OBJECTIVES))


def everything(net):
    """All metrics of the table's networks, in natural signs."""
    return net(net.space.all_architectures())


@pytest.fixture(scope="module")
def net(tmp_path_factory):
    path = write_table(tmp_path_factory.mktemp("table") / "table.csv")
    return nasjax.supernets.create("tabular", table=path, genes=GENES)


def test_limits_are_minimised_and_columns_are_objectives_first():
    both = goals(["max:acc", "min:cost"], ["acc>=70", "width<=50", "width>=9", "acc<=90"])
    assert [column.name for column in both.columns] == ["acc", "cost", "width"]
    assert both.limits == ((-90.0, -70.0), (-np.inf, np.inf), (9.0, 50.0))
    rows = {"acc": [80.0, 95, 80, np.nan], "cost": [1.0, 1, 1, 1], "width": [9.0, 9, 51, 9]}
    values = both.minimised({name: np.array(column) for name, column in rows.items()})
    assert both.kept(values).tolist() == [True, False, False, False]
    np.testing.assert_array_equal(both.feasible(values)[0], [-80, 1])
    assert np.isnan(both.feasible(values)[1:]).all()


SETTINGS = {"full_on_estimations": {"sample": 40, "generations": 30}, "weaknas": {"first": 20, "batch": 20, "top": 40}}
TABLE = {name: {"name": name, **SETTINGS.get(name, {})} for name in TACTICS if name != "proxy"}  # A table has no networks.
QUICK = ("random", "ehvi")
EVERY = [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in TABLE]


@pytest.mark.parametrize("tactic", EVERY)
def test_the_front_is_the_best_of_what_was_measured_within_the_constraints(net, tactic, tmp_path):
    front = nasjax.search(net, objectives=["max:acc", "min:cost"], constraints=["width<=60", "cost>=25"],
                          tactic=TABLE[tactic], evaluations=60, run=tmp_path / "run")  # fmt: skip
    assert len(front)
    assert (front.metrics["width"] <= 60).all() and (front.metrics["cost"] >= 25).all()
    with (tmp_path / "run" / "evaluations.csv").open() as file:
        rows = list(csv.DictReader(file))
    values = np.array([[-float(r["acc"]), float(r["cost"]), float(r["width"])] for r in rows])
    kept = (values[:, 2] <= 60) & (values[:, 1] >= 25)
    assert [r["status"] for r in rows] == np.where(kept, "ok", "infeasible").tolist()
    best = values[kept][brute_front(values[kept][:, :2])]
    found = np.stack([-front.metrics["acc"], front.metrics["cost"]], 1)
    np.testing.assert_allclose(np.unique(found, axis=0), np.unique(best[:, :2], axis=0))
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["infeasible"] == (~kept).sum() and summary["constraints"] == ["width<=60", "cost>=25"]


@pytest.mark.parametrize("tactic", EVERY[1:])
def test_one_objective_within_constraints_gives_the_best_network(net, tactic):
    table = everything(net)
    kept = table["cost"] <= 45
    front = nasjax.search(net, objectives=["max:acc"], constraints=["cost<=45"], tactic=TABLE[tactic], evaluations=120)
    assert len(front) == 1
    assert front.metrics["acc"][0] == pytest.approx(table["acc"][kept].max())


def test_constraints_that_nothing_keeps_leave_an_empty_front(net, tmp_path):
    front = nasjax.search(net, objectives=["max:acc", "min:cost"], constraints=["width<=0"], tactic="ehvi",
                          evaluations=30, run=tmp_path / "run")  # fmt: skip
    assert len(front) == 0 and front.hypervolume == 0


def test_on_the_command_line_bounds_need_no_quotes(tmp_path, capsys):
    table = write_table(tmp_path / "table.csv")
    words = ["search", "supernet=tabular", f"supernet.table={table}", "supernet.genes=[d,a,b,c,e]", "tactic=random",
             "objectives=[max:acc,min:cost]", "evaluations=30"]  # fmt: skip
    assert main([*words, "constraints=[cost<=60, acc>=70]", f"run={tmp_path / 'run'}"]) == 0
    assert "broke a constraint (cost<=60, acc>=70)" in capsys.readouterr().out.replace("\n", " ")
    assert "within cost&lt;=60 and acc&gt;=70" in (tmp_path / "run" / "report.html").read_text()


@pytest.mark.parametrize(
    ("constraints", "words"),
    [
        ("cost<60", "'cost<60' is not of the form name<=number or name>=number"),
        ("latency<=5", "'latency' is not known here; allowed: acc, cost, width"),
        ("[cost<=5,cost>=6]", "no cost is at least 6 and at most 5"),
        ("[cost<=nan]", "'cost<=nan' is not of the form name<=number"),
    ],
)
def test_an_invalid_constraint_is_one_line(tmp_path, capsys, constraints, words):
    table = write_table(tmp_path / "table.csv")
    setting = ["search", "supernet=tabular", f"supernet.table={table}", "supernet.genes=[d,a,b,c,e]",
               "objectives=[max:acc,min:cost]"]  # fmt: skip
    assert main([*setting, f"constraints={constraints}", f"run={tmp_path / 'run'}"]) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("tactic", QUICK)
def test_a_constraint_on_a_gene_holds_in_the_front_and_where_the_gene_is_switched_off(net, tactic, tmp_path):
    front = nasjax.search(net, objectives=["max:acc", "min:cost"], constraints=["c>=5", "c<=6", "a<=5"],
                          tactic=TABLE[tactic], evaluations=30, run=tmp_path / "run")  # fmt: skip
    with (tmp_path / "run" / "evaluations.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0])[:9] == ["index", "step", "status", "source", *("d", "a", "b", "c", "e")]
    kept = np.array([row["c"] in ("", "5") and float(row["a"]) <= 5 for row in rows])
    assert [row["status"] for row in rows] == np.where(kept, "ok", "infeasible").tolist()
    values = np.array([[-float(row["acc"]), float(row["cost"])] for row in rows])
    assert len(front) == brute_front(values[kept]).sum()
    assert any(row["c"] == "" and ok for row, ok in zip(rows, kept, strict=True))
    if tactic == "ehvi":  # It proposes what keeps constraints that are known before measuring: here 30 of 117 networks.
        assert kept.all()


def test_select_keeps_constraints_on_genes(net):
    front = nasjax.search(net, objectives=["max:acc", "min:cost"], tactic="random", evaluations=60)
    best = front.select("d<=2", "c>=7")
    assert best.choices["d"] == 1 or best.choices["c"] == 7
    allowed = [m for m, g in zip(front.metrics["acc"], front.networks(), strict=True) if g["d"] <= 2 and g.get("c", 7) >= 7]
    assert best.metrics["acc"] == max(allowed)


def test_a_constraint_on_a_gene_of_words_is_refused_and_genes_are_named_among_what_is_allowed():
    space = nasjax.space.SearchSpace((nasjax.space.Gene("d", (1, 2)), nasjax.space.Gene("act", ("relu", "gelu"))))
    allowed = measurable(RANGES, OBJECTIVES)
    with pytest.raises(ValueError, match="the gene 'act', whose options are not numbers: relu, gelu"):
        parse_goals(["max:acc"], ["act<=2"], allowed, space=space)
    with pytest.raises(ValueError, match="'x' is not known here; allowed: acc, cost, width, d, act"):
        parse_goals(["max:acc"], ["x<=2"], allowed, space=space)
    assert parse_goals(["max:acc"], ["d<=1"], allowed, space=space).limits[1] == (-np.inf, 1.0)
