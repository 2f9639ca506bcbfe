"""Figures of the page: axes, hypervolume, parallel coordinates, the importance of genes, errors of predictors."""

import csv
import random
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from test_report import ACCURACY, LATENCY, SEARCHES, Page, write_rows, write_run

import nasjax.report.parallel
from nasjax import pareto
from nasjax.errors import ConfigError
from nasjax.report import read_run
from nasjax.report.hypervolume import hypervolume_curve
from nasjax.report.importance import gene_importance
from nasjax.report.page import page
from nasjax.report.parallel import parallel_coordinates
from nasjax.report.plots import panels


@pytest.mark.parametrize("name", ["two", "two_max", "two_min", "three"])
def test_the_share_of_the_box_is_the_hypervolume_of_the_front_scaled_to_it(tmp_path, name):
    run = read_run(write_run(tmp_path / "x", SEARCHES[name]))
    shares = hypervolume_curve(run).values
    assert list(shares) == sorted(shares) and 0 <= shares[0] < shares[-1] < 100
    signs = np.array([-1 if o.direction == "max" else 1 for o in run.objectives])

    def minimised(networks):
        return signs * [[network.metrics[o.name] for o in run.objectives] for network in networks]

    values, front = minimised([network for network in run.evaluations if not network.failed]), minimised(run.front)
    edge = front.max(0) + 0.1 * np.ptp(front, axis=0)
    exact = pareto.hypervolume_exact(values, edge) / np.prod(edge - front.min(0))
    assert shares[-1] == pytest.approx(100 * exact, abs=0.1)


@pytest.mark.parametrize("objectives", [[ACCURACY], [ACCURACY, LATENCY]])
def test_without_a_box_the_curve_is_the_hypervolume(tmp_path, objectives):
    run = read_run(write_run(tmp_path / "x", objectives, count=1 if len(objectives) > 1 else 30, failed=()))
    assert hypervolume_curve(run).values == run.hypervolume
    assert hypervolume_curve(run).label == "hypervolume"


def test_a_bad_network_far_away_does_not_stretch_the_axes(tmp_path):
    folder = write_run(tmp_path / "x", [ACCURACY, LATENCY], failed=())
    (before,) = panels(read_run(folder))
    with (folder / "evaluations.csv").open() as file:
        rows = list(csv.DictReader(file))
    worst = min(rows, key=lambda row: float(row["accuracy_top1"]) - float(row["latency"]))
    index = int(worst["index"])
    assert index not in [network.index for network in read_run(folder).front]
    worst["accuracy_top1"], worst["latency"] = "0.1", "5000"
    write_rows(folder / "evaluations.csv", rows)
    (after,) = panels(read_run(folder))
    assert after.x_range[1] < 60 and after.y_range[0] > before.y_range[0] - 30
    assert after.x_all[1] > 5000 and after.y_all[0] < 0.1
    assert after.places[index] == (5000.0, 0.1)


@pytest.mark.parametrize("name", ["three", "four"])
def test_parallel_coordinates_have_a_line_for_each_network_and_better_is_up(tmp_path, name):
    run = read_run(write_run(tmp_path / "x", SEARCHES[name]))
    found = Page(parallel_coordinates(run))
    measured = {n.index: n for n in run.evaluations if not n.failed}
    lines = {int(a["data-index"]): a["d"].removeprefix("M").split("L") for a in found.of("across")}
    assert set(lines) == set(measured)
    front = [int(a["data-index"]) for a in found.of("front")]
    assert front == [n.index for n in run.front] and list(lines)[-len(front) :] == front
    for i, objective in enumerate(run.objectives):
        heights = {index: float(points[i].split()[1]) for index, points in lines.items()}
        best_first = sorted(measured, key=lambda index: objective.sign * measured[index].metrics[objective.name])
        assert [heights[index] for index in best_first] == sorted(heights.values())
        assert all(12 <= heights[index] <= 284 for index in front)


def test_two_objectives_need_no_parallel_coordinates_and_many_networks_are_thinned(tmp_path, monkeypatch):
    assert parallel_coordinates(read_run(write_run(tmp_path / "two", SEARCHES["two"]))) == ""
    run = read_run(write_run(tmp_path / "three", SEARCHES["three"], count=60))
    monkeypatch.setattr(nasjax.report.parallel, "MOST_BEHIND", 5)
    found = Page(parallel_coordinates(run))
    behind = 58 - len(run.front)
    assert 3 <= len(found.of("dominated")) <= 5 and len(found.of("front")) == len(run.front)
    assert f"of {behind} dominated networks are drawn" in "".join(found.words)


def with_values(run, value):
    """The run with other values of its first objective, a function of each network's genes."""
    name = run.objectives[0].name
    networks = [replace(n, metrics={**n.metrics, name: value(n.genes)}) for n in run.evaluations if not n.failed]
    return replace(run, evaluations=tuple(networks))


def test_the_importance_of_a_gene_is_its_part_of_the_variance(tmp_path):
    run = read_run(write_run(tmp_path / "x", [ACCURACY], count=200))
    alone = gene_importance(with_values(run, lambda genes: 70 + float(genes["kernel_1"])))["accuracy_top1"]
    assert alone.shares["kernel_1"] > 99 and alone.explained > 99 and sum(alone.shares.values()) == pytest.approx(100)
    both = with_values(run, lambda genes: 2 * float(genes["kernel_1"]) + 10 * float(genes["depth"]))
    found = gene_importance(both)["accuracy_top1"]
    spread = {name: np.var([float(n.genes[name]) for n in both.evaluations]) for name in ("kernel_1", "depth")}
    parts = {"kernel_1": 4 * spread["kernel_1"], "depth": 100 * spread["depth"]}
    for name, part in parts.items():
        assert found.shares[name] == pytest.approx(100 * part / sum(parts.values()), abs=2)
    assert gene_importance(both) == gene_importance(both)


def test_what_only_the_depth_decides_is_not_the_switched_off_genes(tmp_path):
    run = read_run(write_run(tmp_path / "x", [ACCURACY], count=200))
    found = gene_importance(with_values(run, lambda genes: 5 * float(genes["depth"])))["accuracy_top1"]
    assert found.shares["depth"] > 99


def test_noise_is_not_explained_and_few_networks_say_nothing(tmp_path):
    run = read_run(write_run(tmp_path / "x", [ACCURACY], count=200))
    draw = random.Random(1)
    assert gene_importance(with_values(run, lambda genes: draw.random()))["accuracy_top1"].explained < 5
    assert gene_importance(with_values(run, lambda genes: 3.0))["accuracy_top1"].explained == 0
    few = read_run(write_run(tmp_path / "few", [ACCURACY], count=19, failed=()))
    assert gene_importance(few) == {} and "Gene importance" not in page(few)
    assert "Gene importance" in page(run)


def test_the_errors_of_predictors_are_drawn_where_there_are_any(tmp_path):
    folder = write_run(tmp_path / "x", [ACCURACY, LATENCY])
    assert "Predictor errors" not in page(read_run(folder))
    lines = [
        "step,objective,rows,mape,rmse,tau,chosen",
        "1,accuracy_top1,10,2.5,1.25,0.75,",
        "2,accuracy_top1,20,1.5,0.5,0.8,",
    ]
    (folder / "predictors.csv").write_text("\n".join([*lines, "2,latency,20,nan,nan,nan,ridge", ""]))
    run = read_run(folder)
    found = Page(page(run))
    assert [fit.rmse for fit in run.fits[:2]] == [1.25, 0.5] and len(found.of("predictor")) == 2
    words = "".join(found.words)
    assert "step 1, fitted to 10 networks: RMSE 1.250, mean error 2.5 %, Kendall's tau 0.75" in words
    (folder / "predictors.csv").write_text("\n".join([*lines, "3,accuracy_top1,much,1,1,1,", ""]))
    with pytest.raises(ConfigError, match=r"predictors\.csv, line 4 .*same command again"):
        read_run(folder)


def test_a_page_is_made_without_jax_and_the_libraries_that_take_long_to_import(tmp_path):
    folder = write_run(tmp_path / "x", SEARCHES["three"], count=40)
    code = "import sys; from nasjax.report.page import page; from nasjax.runs.reader import read_run; "
    code += "page(read_run(sys.argv[1])); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code, folder], capture_output=True, text=True, check=True).stdout.split()
    assert not {"matplotlib", "rich", "jax", "sklearn", "scipy"} & set(loaded)
