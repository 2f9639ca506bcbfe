"""Values beyond 1e18 are refused before anything is measured, or fail; up to there every result is finite."""

import csv
import json
import math
import sys

import numpy as np
import pytest
from tables import GENES, write_table

import nasjax
from nasjax.cli import main
from nasjax.errors import ConfigError
from nasjax.objectives import LIMIT, MAX_OBJECTIVES, measurable, parse_constraint, parse_goals
from nasjax.pareto import hypervolume_exact
from nasjax.report import read_run


def write(path, rows):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("d", "acc", "ms", "other"), *rows])
    return nasjax.supernets.create("tabular", table=str(path), genes=["d"])


def test_at_the_limit_the_hypervolume_of_the_most_objectives_is_finite(tmp_path):
    assert math.isfinite((2 * LIMIT) ** MAX_OBJECTIVES)
    net = write(tmp_path / "table.csv", [(1, -1e18, 1e18, 1e308), (2, 1e18, 1e18, -1e308), (3, 1e18, -1e18, 0)])
    front = nasjax.search(net, objectives=["max:acc", "min:ms"], tactic="random", evaluations=3, run=tmp_path / "run",
                          references={"acc": -1e18, "ms": 1e18})  # fmt: skip
    assert front.hypervolume == pytest.approx(4e36) and front.networks() == [{"d": 3}]
    assert read_run(tmp_path / "run").hypervolume[-1] == pytest.approx(4e36)
    assert hypervolume_exact(np.full((1, 4), -1e18), np.full(4, 1e18)) == pytest.approx(1.6e73)
    names = [f"m{i}" for i in range(MAX_OBJECTIVES + 1)]
    with pytest.raises(ConfigError, match="objectives names 17; a search has at most 16"):
        parse_goals([f"min:{name}" for name in names], [], measurable(dict.fromkeys(names, (0.0, 1.0))))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["references.acc=-1e308"], r"references.acc=-1e\+308 is beyond ±1e\+18"),
        (["references.acc=-inf"], r"acc has no known reference value"),
        (["objectives=[max:acc,min:huge]"], r"huge has the value 1e\+308: values beyond ±1e\+18"),
        (["constraints=[huge<=5]"], r"huge has the value 1e\+308"),
        (["constraints=[cost<=1e19]"], r"'cost<=1e19': its bound is beyond ±1e\+18"),
    ],
)
def test_a_value_beyond_the_limit_is_one_line_and_no_folder(tmp_path, capsys, settings, words):
    table = write_table(tmp_path / "table.csv")
    with open(table) as file:
        header, *rows = csv.reader(file)
    with open(table, "w", newline="") as file:
        csv.writer(file).writerows([[*header, "huge"], *([*row, 1e308] for row in rows)])
    word = ["search", "supernet=tabular", f"supernet.table={table}", f"supernet.genes=[{','.join(GENES)}]",
            "objectives=[max:acc,min:cost]", f"run={tmp_path / 'run'}"]  # fmt: skip
    assert main([*word, *settings]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and not (tmp_path / "run").exists()
    with pytest.raises(ConfigError, match=words):
        raise ConfigError(error)


def test_a_bound_of_infinity_allows_everything_or_is_refused():
    assert parse_constraint("ms<=inf", ["ms"]).bound == math.inf
    with pytest.raises(ConfigError, match="bound is beyond"):
        parse_constraint("ms>=inf", ["ms"])


def test_what_a_function_answers_beyond_the_limit_is_a_failed_evaluation(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    (tmp_path / "huge_answers.py").write_text(
        "def evaluate(archs):\n    return [{'acc': 1e308 if a['k'] == 3 else -1e308 if a['k'] == 5 else 4} for a in archs]\n"
    )
    net = nasjax.supernets.create(
        "external", evaluate="huge_answers:evaluate", genes={"k": [3, 5, 7]}, metrics=("acc",), batch=3
    )
    front = nasjax.search(
        net, objectives=["max:acc"], references={"acc": 0}, tactic="random", evaluations=3, run=tmp_path / "run"
    )
    assert front.networks() == [{"k": 7}] and front.hypervolume == 4
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["failed"] == 2 and max(summary["hypervolume"]) == 4
    evaluations = read_run(tmp_path / "run").evaluations
    assert {row.genes["k"] for row in evaluations if row.failed} == {"3", "5"}


@pytest.mark.parametrize(
    ("error", "said"), [("0", "2 evaluations failed: a metric"), ("1/0", "1 other evaluation failed: a metric")]
)
def test_a_search_says_that_values_beyond_the_limit_failed(tmp_path, monkeypatch, capsys, error, said):
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    name = f"beyond_{len(error)}"
    (tmp_path / f"{name}.py").write_text(
        f"def evaluate(archs): return [{{'acc': 1e308 if a['k'] == 3 else 1e308 + {error}}} for a in archs]\n"
    )
    words = [f"supernet.evaluate={name}:evaluate", "supernet.genes.k=[3,5]", "supernet.metrics=[acc]", "supernet.batch=1"]
    words += ["objectives=[max:acc]", "references.acc=0", "evaluations=2", "tactic=random", f"run={tmp_path / 'run'}"]
    assert main(["search", "supernet=external", *words]) == 2
    assert f"{said} was not finite, or beyond ±1e+18." in capsys.readouterr().out
