"""Searches: what is measured, reused from the archive, resumed, written and refused."""

import csv
import itertools
import json
import re
import shutil
import sqlite3
from contextlib import closing

import jax
import numpy as np
import pytest
import yaml
from tables import GENES, brute_front, write_table

import nasjax
from nasjax import supernets
from nasjax.algorithms import NSGA2
from nasjax.objectives import parse_goals
from nasjax.predictors import Ridge
from nasjax.runs.folder import run_folder
from nasjax.searches.problem import search_problem
from nasjax.searches.tactic_problem import tactic_problem
from nasjax.supernets.tabular import TabularNet
from nasjax.tactics import Concurrent, Random, WeakNAS

GOALS = ("max:acc", "min:cost")
FILES = ("evaluations.csv", "pareto.csv")
TACTIC = {
    "random": {"population": 7},
    "full": {"population": 8},
    "concurrent": {"population": 6, "generations": 5},
    "ehvi": {"start": 3, "batch": 6, "generations": 5, "greedy": 12},
    "full_on_estimations": {"sample": 12, "generations": 5},
    "weaknas": {"pool": 200, "first": 9, "batch": 7, "top": 20},
}
"""Small settings of every tactic but `proxy`, which needs a super-network of layers."""


@pytest.fixture
def net(tmp_path):
    return supernets.create("tabular", table=write_table(tmp_path / "table.csv"), genes=GENES)


def settings(tactic):
    return {"name": tactic, **TACTIC[tactic]}


def search(net, tactic="concurrent", **more):
    return nasjax.search(net, objectives=GOALS, tactic=settings(tactic), predictor="ridge", **{"evaluations": 30, **more})


def rows(folder, name="evaluations.csv"):
    with (folder / name).open() as file:
        return list(csv.DictReader(file))


def outcome(folder):
    """evaluations.csv without its seconds, and pareto.csv, as bytes."""
    lines = (folder / "evaluations.csv").read_bytes().splitlines()
    return [line.rpartition(b",")[0] for line in lines], (folder / "pareto.csv").read_bytes()


@pytest.fixture
def counted(monkeypatch):
    """Lists every architecture that a table measures, in order; tables have chunks of three."""
    measured = []
    lookup = TabularNet.__call__

    def call(self, archs):
        assert len(archs) <= self.chunk
        measured.extend(map(tuple, archs.tolist()))
        return lookup(self, archs)

    monkeypatch.setattr(TabularNet, "__call__", call)
    created = TabularNet.__init__

    def init(self, *arguments):
        created(self, *arguments)
        self.chunk = 3

    monkeypatch.setattr(TabularNet, "__init__", init)
    return measured


def quickly(*names):
    """All tactics as parameters: those named for the quick tests, the others for the slow ones."""
    return [name if name in names else pytest.param(name, marks=pytest.mark.slow) for name in TACTIC]


@pytest.mark.parametrize("tactic", quickly("ehvi", "random"))
def test_a_budget_as_large_as_the_space_finds_the_true_front(net, tactic):
    front = search(net, tactic, evaluations=len(net.archs) + 9)
    values = np.stack([-net.values[:, 0], net.values[:, 1]], axis=1)
    true = {tuple(arch) for arch in net.archs[brute_front(values)].tolist()}
    assert {tuple(arch) for arch in front.archs.tolist()} == true


@pytest.mark.parametrize("tactic", TACTIC)
def test_no_network_is_measured_twice_within_the_budget(net, counted, tactic):
    net.chunk = 3
    search(net, tactic)
    assert len(counted) == 30
    assert len(set(counted)) == 30
    assert all((net.space.canonical(np.array(arch, np.int32)) == np.array(arch)).all() for arch in counted)


def test_half_of_the_evaluations_are_sampled_unless_a_number_is_named(net):
    half, twelve, six = (
        nasjax.search_seeds(net, [0], objectives=GOALS, evaluations=24,
                            tactic={"name": "full_on_estimations", "generations": 5, "sample": sample}).archs[0]
        for sample in (None, 12, 6)
    )  # fmt: skip
    np.testing.assert_array_equal(half, twelve)
    np.testing.assert_array_equal(half[:6], six[:6])
    assert (half[6:12] != six[6:12]).any()


@pytest.mark.parametrize("tactic", TACTIC)
def test_the_same_seed_gives_the_same_run_and_another_seed_another(net, tmp_path, tactic):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        search(net, tactic, run=tmp_path / name, seed=seed)
    assert outcome(tmp_path / "a") == outcome(tmp_path / "b")
    assert outcome(tmp_path / "a") != outcome(tmp_path / "c")


def test_concurrent_search_needs_fewer_measurements_than_random_search(net):
    volumes = {t: np.median([search(net, t, seed=seed).hypervolume for seed in range(5)]) for t in ("random", "concurrent")}
    assert volumes["concurrent"] > volumes["random"]


@pytest.mark.parametrize("budget", [15, pytest.param(30, marks=pytest.mark.slow)])
@pytest.mark.parametrize("tactic", quickly("ehvi"))
def test_a_run_stopped_anywhere_ends_as_an_uninterrupted_one(tmp_path, counted, tactic, budget):
    """After every chunk of three measurements; within 15 evaluations every tactic asks at least twice."""
    net = supernets.create("tabular", table=write_table(tmp_path / "table.csv"), genes=GENES)
    search(net, tactic, run=tmp_path / "whole", evaluations=budget)
    assert len(counted) == budget
    arguments = {"objectives": GOALS, "tactic": settings(tactic), "predictor": "ridge", "evaluations": budget}
    steps = list(nasjax.searching(net, **arguments))
    assert len(steps) > 1
    for after in range(len(steps) + 1):
        counted.clear()
        folder = tmp_path / f"stopped-{after}"
        half = nasjax.searching(net, **arguments, run=folder)
        for _ in range(after):
            next(half)
        half.close()
        search(net, tactic, run=folder, evaluations=budget)
        assert outcome(folder) == outcome(tmp_path / "whole"), after
        assert len(counted) == len(set(counted)) == budget, after


def test_a_crash_in_the_middle_of_a_chunk_loses_no_earlier_measurement(tmp_path, counted, monkeypatch):
    net = supernets.create("tabular", table=write_table(tmp_path / "table.csv"), genes=GENES)
    search(net, run=tmp_path / "whole")
    counted.clear()
    lookup, calls = TabularNet.__call__, []

    def fail_at_fifth(self, archs):
        calls.append(len(archs))
        if len(calls) == 5:
            raise MemoryError("as if")
        return lookup(self, archs)

    monkeypatch.setattr(TabularNet, "__call__", fail_at_fifth)
    with pytest.raises(MemoryError):
        search(net, run=tmp_path / "crashed")
    assert len(counted) == 12
    search(net, run=tmp_path / "crashed")
    assert len(counted) == len(set(counted)) == 30
    assert outcome(tmp_path / "crashed") == outcome(tmp_path / "whole")


def test_a_finished_run_goes_on_with_a_larger_budget(tmp_path, counted):
    net = supernets.create("tabular", table=write_table(tmp_path / "table.csv"), genes=GENES)
    search(net, run=tmp_path / "run", evaluations=20)
    before = rows(tmp_path / "run")
    search(net, run=tmp_path / "run", evaluations=33)
    after = rows(tmp_path / "run")
    assert after[:20] == before
    assert len(after) == 33
    assert len(counted) == len(set(counted)) == 33
    with pytest.raises(ValueError, match="evaluations=33; 20 is less"):
        search(net, run=tmp_path / "run", evaluations=20)


def test_a_step_that_the_budget_cut_short_is_asked_again_with_a_larger_budget(tmp_path, counted):
    net = supernets.create("tabular", table=write_table(tmp_path / "table.csv"), genes=GENES)
    half = nasjax.searching(net, objectives=GOALS, tactic=settings("random"), predictor="ridge", evaluations=10,
                            run=tmp_path / "run")  # fmt: skip
    for _ in range(2):
        next(half)
    half.close()
    search(net, "random", run=tmp_path / "run", evaluations=21)
    assert len({tuple(row[g] for g in GENES) for row in rows(tmp_path / "run")}) == 21


def test_a_later_run_reuses_the_measurements_of_a_shared_archive(tmp_path, counted):
    net = supernets.create("tabular", table=write_table(tmp_path / "table.csv"), genes=GENES)
    shared = tmp_path / "shared.db"
    search(net, "random", run=tmp_path / "a", archive=shared)
    first = len(counted)
    search(net, "random", run=tmp_path / "b", archive=shared)
    assert first == len(counted) == 30
    a, b = rows(tmp_path / "a"), rows(tmp_path / "b")
    assert [row | {"source": ""} for row in a] == [row | {"source": ""} for row in b]
    assert {row["source"] for row in a} == {"measured"}
    assert {row["source"] for row in b} == {"archive"}
    assert json.loads((tmp_path / "b" / "summary.json").read_text())["from_archive"] == 30


def test_runs_without_a_folder_share_only_the_measurements_of_an_archive(tmp_path, counted):
    one = supernets.create("tabular", table=write_table(tmp_path / "one.csv"), genes=GENES)
    other = supernets.create("tabular", table=write_table(tmp_path / "other.csv", bad=[3]), genes=GENES)
    for net, seed in ((one, 0), (one, 1), (other, 0)):
        alone = search(net, "random", seed=seed)
        shared = search(net, "random", seed=seed, archive=tmp_path / "shared.db")
        np.testing.assert_array_equal(shared.archs, alone.archs)
        assert shared.hypervolume == alone.hypervolume
    with closing(sqlite3.connect(tmp_path / "shared.db")) as base:
        assert base.execute("select count(*) from evaluations").fetchone() == (90,)


def test_measurements_of_another_table_are_not_reused(tmp_path, counted):
    one = supernets.create("tabular", table=write_table(tmp_path / "one.csv"), genes=GENES)
    other = supernets.create("tabular", table=write_table(tmp_path / "other.csv", bad=[3]), genes=GENES)
    search(one, "random", archive=tmp_path / "shared.db", run=tmp_path / "a")
    search(other, "random", archive=tmp_path / "shared.db", run=tmp_path / "b")
    assert len(counted) == 60


@pytest.mark.slow
def test_failed_networks_are_counted_and_not_on_the_front(tmp_path):
    net = supernets.create("tabular", table=write_table(tmp_path / "t.csv", bad=range(0, 100, 3)), genes=GENES)
    for tactic in TACTIC:
        front = search(net, tactic, run=tmp_path / tactic)
        summary = json.loads((tmp_path / tactic / "summary.json").read_text())
        failed = [row for row in rows(tmp_path / tactic) if row["status"] == "failed"]
        assert summary["failed"] == len(failed) > 0
        assert all(row["acc"] == "nan" for row in failed)
        assert np.isfinite(front.metrics["acc"]).all()


def test_any_metric_that_is_not_finite_marks_the_network_failed(tmp_path):
    """Also a metric that is not an objective: the accuracy of a network whose loss is NaN is a number."""
    (tmp_path / "t.csv").write_text("k,acc,loss\n1,70,0.5\n2,90,nan\n3,80,inf\n4,60,0.1\n")
    net = supernets.create("tabular", table=str(tmp_path / "t.csv"), genes=("k",))
    front = nasjax.search(net, objectives=["max:acc"], tactic="random", evaluations=4, run=tmp_path / "run")
    assert front.networks() == [{"k": 1}]
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["failed"] == 2
    assert {row["k"] for row in rows(tmp_path / "run") if row["status"] == "failed"} == {"2", "3"}


def test_the_run_folder_agrees_with_the_table(net, tmp_path):
    front = search(net, run=tmp_path / "run")
    known = {tuple(map(int, arch)): values for arch, values in zip(net.archs, net.values, strict=True)}
    table = rows(tmp_path / "run")
    assert [int(row["index"]) for row in table] == list(range(30))
    points = []
    for row in table:
        chosen = {gene: int(row[gene]) for gene in GENES if row[gene]}
        values = known[tuple(net.space.encode(chosen).tolist())]
        assert (float(row["acc"]), float(row["cost"])) == tuple(values[:2])
        points.append((-values[0], values[1]))
    best = brute_front(np.array(points))
    assert {int(row["index"]) for row in rows(tmp_path / "run", "pareto.csv")} == set(np.flatnonzero(best).tolist())
    assert sorted(front.indices.tolist()) == np.flatnonzero(best).tolist()
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert [goal["reference"] for goal in summary["objectives"]] == [net.ranges()["acc"][0], net.ranges()["cost"][1]]
    volume = summary["hypervolume"]
    assert len(volume) == 30
    assert all(later >= earlier for earlier, later in itertools.pairwise(volume))
    assert volume[-1] == front.hypervolume


def test_evaluations_csv_loads_as_a_table(net, tmp_path):
    search(net, "random", run=tmp_path / "run", evaluations=60)
    again = supernets.create("tabular", table=str(tmp_path / "run" / "evaluations.csv"), genes=GENES)
    assert again.metrics == ("acc", "cost", "width")
    assert len(again.archs) == 60
    for arch, values in zip(again.archs, again.values, strict=True):
        chosen = again.space.decode(arch)
        assert (net(net.space.encode(chosen)[None])["acc"][0]) == values[0]


def test_without_a_run_folder_nothing_is_written(net, tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    assert search(net).folder is None
    assert list((tmp_path / "empty").iterdir()) == []


@pytest.mark.slow
def test_searches_with_one_and_three_objectives_find_the_true_front(net):
    best = nasjax.search(net, objectives=["max:acc"], tactic="random", evaluations=10_000)
    assert best.metrics["acc"].tolist() == [net.ranges()["acc"][1]]
    true = {tuple(arch) for arch in net.archs[brute_front(net.values * [-1, 1, 1])].tolist()}
    goals = ["max:acc", "min:cost", "min:width"]
    front = nasjax.search(net, objectives=goals, tactic=settings("concurrent"), predictor="ridge", evaluations=500)
    assert {tuple(arch) for arch in front.archs.tolist()} == true


def test_references_move_the_hypervolume(net):
    front = search(net, "random")
    moved = search(net, "random", references={"acc": net.ranges()["acc"][0] - 5})
    assert moved.hypervolume > front.hypervolume
    with pytest.raises(ValueError, match="references names 'loss'"):
        search(net, references={"loss": 1.0})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"seed": 1}, "started with seed=0, not 1"),
        ({"tactic": "random"}, "started with tactic.name=concurrent, not random"),
        ({"tactic": {"name": "concurrent", "population": 9}}, "tactic.population=6, not 9"),
        ({"objectives": ["max:acc"]}, "started with objectives="),
    ],
)
def test_other_settings_than_the_run_was_started_with_are_refused(net, tmp_path, change, words):
    arguments = {"objectives": GOALS, "tactic": settings("concurrent"), "evaluations": 12, "run": tmp_path / "run"}
    nasjax.search(net, **arguments)
    with pytest.raises(ValueError, match="started with") as caught:
        nasjax.search(net, **(arguments | change))
    assert words in str(caught.value)


def test_a_run_whose_table_changed_is_refused(net, tmp_path):
    search(net, run=tmp_path / "run")
    other = supernets.create("tabular", table=write_table(tmp_path / "table.csv", bad=[1]), genes=GENES)
    with pytest.raises(ValueError, match=r"another content of supernet\.table"):
        search(other, run=tmp_path / "run")


def test_a_folder_that_is_in_use_or_not_a_run_is_refused(net, tmp_path):
    search(net, run=tmp_path / "run", evaluations=6)
    copy = json.loads((tmp_path / "run" / "run.json").read_text())["context"]
    kept = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    with run_folder(tmp_path / "run", kept, copy), pytest.raises(ValueError, match="in use"):
        search(net, run=tmp_path / "run", evaluations=6)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("precious")
    with pytest.raises(ValueError, match="is not a run folder"):
        search(net, run=tmp_path / "other")
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["thesis.tex"]


def test_an_archive_of_a_newer_version_and_other_files_are_refused(net, tmp_path):
    base = sqlite3.connect(tmp_path / "newer.db")
    base.execute("pragma user_version = 99")
    base.commit()
    with pytest.raises(ValueError, match="newer nasjax"):
        search(net, archive=tmp_path / "newer.db", run=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    (tmp_path / "text.db").write_text("not a database, but long enough to look like one" * 50)
    with pytest.raises(ValueError, match="cannot be used as an archive"):
        search(net, archive=tmp_path / "text.db")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"objectives": []}, "objectives is empty"),
        ({"objectives": ["max:acc", "acc"]}, "needs a direction"),
        ({"objectives": ["max:acc", "max:acc"]}, "named twice"),
        ({"objectives": [" "]}, "not of the form"),
        ({"objectives": ["best:acc"]}, "'best:acc' cannot be measured here; allowed: acc, cost, width"),
        ({"objectives": ["latency"]}, "cannot be measured here; allowed: acc, cost, width"),
        ({"tactic": "linas"}, "unknown tactic 'linas'; allowed: random, full, full_on_estimations, concurrent"),
        ({"tactic": {"name": "random", "size": 3}}, "no setting 'size'; allowed: population"),
        ({"evaluations": 0}, "at least 1"),
    ],
)
def test_invalid_settings_are_one_line_before_anything_is_written(net, tmp_path, arguments, words):
    with pytest.raises(ValueError) as caught:
        nasjax.search(net, **({"objectives": GOALS, "run": tmp_path / "run"} | arguments))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_nothing_recompiles_as_the_archive_grows(net, caplog):
    search(net, evaluations=30)  # Compiles the small operations.
    with jax.log_compiles():
        steps = nasjax.searching(net, objectives=GOALS, tactic=Concurrent(4, 5), evaluations=64)
        for _ in range(6):
            next(steps)
        caplog.clear()
        for _ in range(6):
            next(steps)
    big = [
        r.getMessage()
        for r in caplog.records
        if "Compiling" in r.getMessage() and ("evolve" in r.getMessage() or "fit" in r.getMessage())
    ]
    assert big == []


def test_a_moved_run_folder_is_resumed(net, tmp_path):
    search(net, run=tmp_path / "run", evaluations=12)
    shutil.move(tmp_path / "run", tmp_path / "moved")
    search(net, run=tmp_path / "moved", evaluations=18)
    assert len(rows(tmp_path / "moved")) == 18
    assert {row["source"] for row in rows(tmp_path / "moved")} == {"measured"}
    assert FILES[0] in {path.name for path in (tmp_path / "moved").iterdir()}


def test_minutes_0_measures_nothing_and_writes_the_results_so_far(net, tmp_path, counted):
    net.chunk = 3
    half = nasjax.searching(net, objectives=GOALS, tactic=settings("random"), predictor="ridge", evaluations=30,
                            run=tmp_path / "run")  # fmt: skip
    for _ in range(3):
        next(half)
    half.close()
    measured = len(counted)
    front = search(net, "random", run=tmp_path / "run", minutes=0)
    assert len(counted) == measured == len(rows(tmp_path / "run"))
    assert len(front) > 0
    search(net, "random", run=tmp_path / "run")
    assert len(counted) == len(set(counted)) == 30
    with pytest.raises(ValueError, match="minutes must be at least 0"):
        search(net, minutes=-1)


@pytest.mark.slow
def test_a_run_killed_at_its_very_start_is_resumed(net, tmp_path):
    search(net, "random", run=tmp_path / "whole", evaluations=9)
    for left in ([".lock"], [".lock", ".run.json.123"], [".lock", "run.json"]):
        folder = tmp_path / f"begun-{len(left)}-{left[-1]}"
        folder.mkdir()
        for name in left:
            shutil.copy(tmp_path / "whole" / name, folder) if name in (".lock", "run.json") else (folder / name).touch()
        search(net, "random", run=folder, evaluations=9)
        assert outcome(folder) == outcome(tmp_path / "whole")


def test_a_run_stopped_among_reused_measurements_reports_their_positions(net, tmp_path, counted):
    net.chunk = 3
    shared = tmp_path / "shared.db"
    search(net, "random", run=tmp_path / "a", archive=shared, evaluations=4)
    half = nasjax.searching(
        net,
        objectives=GOALS,
        tactic=settings("random"),
        predictor="ridge",
        evaluations=20,
        run=tmp_path / "b",
        archive=shared,
    )
    next(half)
    half.close()
    front = search(net, "random", run=tmp_path / "b", archive=shared, evaluations=20, minutes=0)
    written = {row["index"]: row for row in rows(tmp_path / "b")}
    for row in rows(tmp_path / "b", "pareto.csv"):
        assert all(written[row["index"]][name] == row[name] for name in (*GENES, "acc", "cost"))
    assert {str(index) for index in front.indices} <= set(written)


def test_every_row_of_an_incomplete_table_is_found(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    archs = np.unique(rng.integers(0, 3, (120, 14)), axis=0)
    with (tmp_path / "holes.csv").open("w", newline="") as file:
        genes = [f"g{i}" for i in range(14)]
        csv.writer(file).writerows([[*genes, "acc"], *[[*arch, i] for i, arch in enumerate(archs.tolist())]])
    net = supernets.create("tabular", table=str(tmp_path / "holes.csv"), genes=genes)
    front = nasjax.search(net, objectives=["max:acc"], tactic="random", evaluations=10_000, run=tmp_path / "run")
    assert len(rows(tmp_path / "run")) == len(archs)
    assert front.metrics["acc"].tolist() == [len(archs) - 1]


def sparse_table(path, rows=400, genes=14):
    """Random rows of a large space; the metric is the first gene."""
    archs = np.unique(np.random.default_rng(0).integers(0, 3, (rows, genes)) ** 2 // 2, axis=0)
    with path.open("w", newline="") as file:
        names = [f"g{i}" for i in range(genes)]
        csv.writer(file).writerows([[*names, "acc"], *[[*arch, arch[0]] for arch in archs.tolist()]])
    return supernets.create("tabular", table=str(path), genes=names)


@pytest.mark.parametrize("tactic", ["random", "weaknas"])
def test_rows_of_an_incomplete_table_are_drawn_uniformly(tmp_path, tactic):
    """Taking the row nearest to a random architecture would not be uniform."""
    net = sparse_table(tmp_path / "sparse.csv")
    problem = search_problem(net, None)
    for_tactic = tactic_problem(problem, parse_goals(["max:acc"], (), problem.measurable), NSGA2(), Ridge(), 40)
    chosen = {"random": Random(population=40), "weaknas": WeakNAS(first=40)}[tactic]
    places = {bytes(arch): i for i, arch in enumerate(net.archs)}
    times = np.zeros(len(net.archs))
    for seed in range(60):
        asked, _ = chosen.ask(chosen.init(jax.random.key(seed), for_tactic))
        times[[places[bytes(arch)] for arch in asked]] += 1
    expected = 40 * 60 / len(net.archs)
    # Mean plus three standard deviations of chi-squared; draws without replacement vary less.
    assert ((times - expected) ** 2 / expected).sum() < len(net.archs) + 3 * np.sqrt(2 * len(net.archs))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"evaluations": "8"}, "evaluations must be a whole number of at least 1, not '8'"),
        ({"evaluations": 8.5}, "evaluations must be a whole number of at least 1, not 8.5"),
        ({"constraints": [5]}, "constraints must be a list of strings, not [5]"),
        ({"warm_start": 3}, "warm_start must be the path of a file or folder, not 3"),
        ({"tactic": {"name": "random", "population": 2.5}}, "tactic.population must be a whole number, not 2.5"),
        ({"space_reduction": True}, "space_reduction must be a name, a mapping with `name`, or settings, not True"),
    ],
)
def test_arguments_of_a_wrong_type_are_one_line(net, arguments, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        nasjax.search(net, **{"objectives": ["max:acc"], **arguments})


def test_a_single_string_is_a_list_of_one(net):
    every = {"tactic": "random", "evaluations": 20}
    one = nasjax.search(net, objectives="max:acc", constraints="cost<=60", **every)
    listed = nasjax.search(net, objectives=["max:acc"], constraints=["cost<=60"], **every)
    np.testing.assert_array_equal(one.archs, listed.archs)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"seed": 2**40}, "seed must be from 0"),
        ({"seed": -1}, "seed must be from 0"),
        ({"archive": "nowhere/a.db"}, "there is no folder"),
        ({"archive": "text.db"}, "cannot be used as an archive"),
        ({"archive": "."}, "is a folder"),
    ],
)
def test_an_unsuitable_seed_or_archive_is_refused_before_the_folder_is_made(net, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.db").write_text("not a database")
    with pytest.raises(ValueError) as caught:
        search(net, run="run", **arguments)
    assert words in str(caught.value)
    assert not (tmp_path / "run").exists()
