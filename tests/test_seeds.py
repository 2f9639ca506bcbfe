"""Many seeds: `search_seeds` and `nasjax search seeds=` evaluate the same architectures as one search a seed."""

import csv
import json

import jax
import numpy as np
import pytest
from tables import GENES, write_table

import nasjax
from nasjax.algorithms import NSGA2
from nasjax.cli import main
from nasjax.cli.multirun import _distinct
from nasjax.objectives import parse_goals
from nasjax.predictors import Ridge
from nasjax.report.groups import group_runs
from nasjax.report.traces import read_traces
from nasjax.searches.problem import search_problem
from nasjax.searches.tactic_problem import tactic_problem
from nasjax.tactics import Concurrent

GOALS = ["max:acc", "min:cost"]
TACTICS = {
    "random": {"population": 8},
    "full": {"population": 8},
    "concurrent": {"population": 6, "generations": 5},
    "ehvi": {"start": 10, "batch": 10, "generations": 5},
}


@pytest.fixture(scope="module")
def net(tmp_path_factory):
    return nasjax.supernets.create("tabular", table=write_table(tmp_path_factory.mktemp("t") / "table.csv"), genes=GENES)


def arguments(tactic, constraints=("width<=90",)):
    """A constraint, and a budget near the size of the space, so that few new architectures are left."""
    return {"objectives": GOALS, "constraints": constraints, "tactic": {"name": tactic, **TACTICS[tactic]},
            "algorithm": {"name": "nsga2", "population": 10}, "predictor": "ridge", "evaluations": 60}  # fmt: skip


@pytest.mark.parametrize("tactic", ["random", "full", "ehvi"])
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
        ({"tactic": "ehvy"}, "unknown tactic 'ehvy'"),
        ({"evaluations": 0}, "evaluations must be a whole number of at least 1"),
        ({"warm_start": "nowhere"}, "warm_start=nowhere: there is no such file"),
        ({"seeds": []}, "seeds must name at least one seed"),
        ({"seeds": [-1]}, "seed must be from 0 to"),
    ],
)
def test_unsupported_arguments_are_refused_in_one_line(net, changes, words):
    seeds = changes.pop("seeds", [0])
    with pytest.raises(ValueError, match=words):
        nasjax.search_seeds(net, seeds, objectives=GOALS, **changes)


def test_what_is_no_table_is_refused(tiny_net):
    with pytest.raises(ValueError, match="many seeds need a table"):
        nasjax.search_seeds(tiny_net, [0], objectives=GOALS)


def test_failed_networks_and_budgets_beyond_the_space_are_as_in_one_search(tmp_path):
    """What cannot be vmapped is searched in turn: all of a table with failed networks and without some rows."""
    path = write_table(tmp_path / "table.csv", bad=range(0, 60, 3))
    lines = (tmp_path / "table.csv").read_text().splitlines()
    (tmp_path / "table.csv").write_text("\n".join(lines[:80]))
    net = nasjax.supernets.create("tabular", table=path, genes=GENES)
    chosen = {"objectives": GOALS, "tactic": {"name": "random", "population": 50}, "evaluations": 100}
    runs = nasjax.search_seeds(net, [4, 5], **chosen)
    assert runs.archs.shape == (2, 79, len(GENES)) and np.isnan(runs.values).all(2).sum(1).tolist() == [20, 20]
    front = nasjax.search(net, **chosen, seed=5)
    assert front.hypervolume == pytest.approx(runs.hypervolumes[1, -1])


@pytest.fixture
def command(tmp_path, monkeypatch):
    """The words of a search of the table by random search, in the folder of the test."""
    monkeypatch.chdir(tmp_path)
    write_table(tmp_path / "table.csv")
    words = ["supernet=tabular", "supernet.table=table.csv", f"supernet.genes=[{','.join(GENES)}]"]
    return ["search", *words, "objectives=[max:acc,min:cost]", "evaluations=12", "tactic.population=5", "tactic=random"]


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_command_writes_what_each_search_evaluates(command, tmp_path):
    assert main([*command, "constraints=[width<=90]", "seed=3", "seeds=2", "run=many"]) == 0
    found = rows_of(tmp_path / "many" / "seeds.csv")
    assert [(row["seed"], row["index"]) for row in found] == [(seed, str(i)) for seed in "34" for i in range(12)]
    assert main([*command, "constraints=[width<=90]", "seed=4", "run=one"]) == 0
    single = rows_of(tmp_path / "one" / "evaluations.csv")
    same = ("status", *GENES, "acc", "cost", "width")
    assert [[row[key] for key in same] for row in found[12:]] == [[row[key] for key in same] for row in single]
    assert {row["status"] for row in found} == {"ok", "infeasible"}
    assert (tmp_path / "many" / "comparison.html").is_file()


@pytest.mark.parametrize("torn", [pytest.param(0, marks=pytest.mark.slow), pytest.param(1, marks=pytest.mark.slow), 100])
def test_a_killed_search_is_resumed_and_may_get_more_seeds(command, tmp_path, torn, monkeypatch):
    monkeypatch.setattr("nasjax.searches.seeds.BLOCK", 2)
    assert main([*command, "seeds=4", "run=whole"]) == 0
    assert main([*command, "seeds=2", "run=part"]) == 0
    with (tmp_path / "part" / "seeds.csv").open("ab") as file:  # Of a block that a killed process was writing.
        file.write((tmp_path / "whole" / "seeds.csv").read_bytes()[-torn:][:torn])
    assert main([*command, "seeds=4", "run=part"]) == 0
    assert (tmp_path / "part" / "seeds.csv").read_bytes() == (tmp_path / "whole" / "seeds.csv").read_bytes()
    assert main([*command, "seeds=3", "run=part"]) == 2  # Fewer than there are.


def test_reports_compare_seeds_with_single_runs_and_test_them(command, tmp_path, capsys):
    """The same seeds as single runs and in one folder are the same curves; six common seeds are tested."""
    assert main([*command, "seeds=6", "run=many"]) == 0
    for seed in range(2):
        assert main([*command, f"seed={seed}", f"run=runs/{seed}"]) == 0
    many, single = (group_runs(read_traces(folders))[0] for folders in
                    ([tmp_path / "many"], [tmp_path / "runs" / "0", tmp_path / "runs" / "1"]))  # fmt: skip
    np.testing.assert_allclose(many[0].volumes[:2], single[0].volumes, rtol=1e-12)
    assert main(["report", "many", "runs"]) == 0
    assert "has the settings and the seed of many" in capsys.readouterr().out
    assert main([*command[:-2], "tactic=full", "tactic.population=5", "seeds=6", "run=full"]) == 0
    assert main(["report", "many", "full", "--out", "out"]) == 0
    page = (tmp_path / "out" / "comparison.html").read_text()
    assert "Wilcoxon" in page and "random (6 runs)" in page and "full (6 runs)" in page


def test_a_sweep_leaves_out_jobs_that_would_repeat_others():
    tactics, predictors = ("random", "full", "ehvi"), ("ridge", "svr")
    jobs = [[f"tactic={t}", f"predictor={p}", f"predictor.seed={s}"] for t in tactics for p in predictors for s in range(2)]
    kept, left_out = _distinct(jobs)
    assert kept == [jobs[0], jobs[4], *jobs[8:]] and left_out == 6
    assert _distinct([[*job, "space_reduction=popdb"] for job in jobs])[1] == 0


@pytest.mark.slow
def test_a_sweep_skips_what_is_done(command, sweeps, capsys):
    sweep = [command[0], "-m", *command[1:-1], "tactic=random,full", "seeds=2", "hydra.sweep.dir=sweep"]
    assert main(sweep) == 0
    assert main(sweep) == 0
    assert capsys.readouterr().out.count("is done already") == 2


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["seeds=0"], "seeds must be at least 1, not 0"),
        (["seeds=2", "seed=4294967295"], "seed must be from 0 to 4294967295"),
        (["seeds=2", "minutes=1"], "seeds=2 searches a table once a seed, without minutes=: leave one of both out"),
        (["seeds=2", "tracker=tensorboard"], "without tracker=: leave one of both out"),
        (["seeds=2", "run=table.csv"], "run=table.csv exists and is not a run folder"),
        (["warm_start=many"], "warm_start=many has searches with many seeds (seeds=): name one run, or their table"),
    ],
)
def test_mistakes_are_one_line(command, words, line, tmp_path, capsys):
    (tmp_path / "many").mkdir()
    (tmp_path / "many" / "seeds.csv").write_text("seed\n")
    assert main([*command, *words]) == 2
    said = capsys.readouterr().err.splitlines()
    assert line in said[-1]


def test_a_damaged_folder_is_named(command, tmp_path, capsys):
    assert main([*command, "seeds=2", "run=many"]) == 0
    text = (tmp_path / "many" / "seeds.csv").read_text()
    for old, new, word in (("acc", "a", "no column 'acc'"), (",ok,", ",ok,7,", "line 2 has")):
        (tmp_path / "many" / "seeds.csv").write_text(text.replace(old, new, 1))
        assert main(["report", "many"]) == 2
        said = capsys.readouterr().err
        assert "seeds.csv is damaged" in said and word in said
    (tmp_path / "many" / "seeds.json").write_text("{}")
    assert main(["report", "many"]) == 2
    assert "seeds.json is damaged (it lacks 'objectives')" in capsys.readouterr().err
