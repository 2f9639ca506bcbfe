"""Comparison of runs: groups, the common reference point, and the evaluations needed to reach a share of the best."""

import csv
import json
import re
from html.parser import HTMLParser
from itertools import product
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from tables import GENES, brute_front, write_table

import nasjax
from nasjax import supernets
from nasjax.algorithms import ALGORITHMS
from nasjax.cli import main
from nasjax.cli.tables import GROUPS
from nasjax.objectives import Objective
from nasjax.pareto import hypervolume_exact
from nasjax.report.colours import COLOURS, NAMES, group_colours
from nasjax.report.compare import _tested, compare, write_comparison
from nasjax.report.comparison_figures import curves_figure, front_panels, fronts_figure
from nasjax.report.comparison_tables import comparison_table, holm, significance_table
from nasjax.report.groups import RunGroup, group_runs
from nasjax.report.page import TEMPLATES
from nasjax.report.traces import read_traces, run_folders
from nasjax.runs.reader import read_run
from nasjax.tactics import TACTICS


@pytest.fixture
def runs(tmp_path):
    net = supernets.create("tabular", table=write_table(tmp_path / "table.csv"), genes=GENES)
    for tactic, budget in (("random", 20), ("full", 24)):
        for seed in range(3):
            folder = tmp_path / "sweep" / f"{tactic}-{seed}"
            nasjax.search(net, objectives=["max:acc", "min:cost"], tactic=tactic, evaluations=budget, seed=seed, run=folder)
    return tmp_path / "sweep"


def test_seeds_are_grouped_and_settings_told_apart(runs):
    found, best = group_runs(read_traces(run_folders([runs])))
    assert {group.label: group.volumes.shape for group in found} == {"full": (3, 24), "random": (3, 20)}
    every = []
    for file in runs.glob("*/evaluations.csv"):
        with file.open() as opened:
            every += [(-float(row["acc"]), float(row["cost"])) for row in csv.DictReader(opened)]
    goals = read_run(next(runs.iterdir())).objectives
    reference = np.array([-goals[0].reference, goals[1].reference])
    assert best == pytest.approx(hypervolume_exact(np.array(every), reference), rel=1e-12)
    for group in found:
        assert (np.diff(group.volumes, axis=1) >= 0).all()
        assert (group.volumes[:, -1] <= best * (1 + 1e-12)).all()


def test_the_reference_point_is_common(runs, tmp_path):
    net = supernets.create("tabular", table=str(runs.parent / "table.csv"), genes=GENES)
    worse = net.ranges()["acc"][0] - 10
    nasjax.search(
        net, objectives=["max:acc", "min:cost"], tactic="random", evaluations=20, seed=0, run=runs / "other",
        references={"acc": worse},
    )  # fmt: skip
    found, _ = group_runs(read_traces([runs / "other", runs / "random-0"]))
    volumes = np.concatenate([group.volumes for group in found])
    np.testing.assert_array_equal(volumes[0], volumes[1])


def test_a_volume_is_reached_at_the_first_evaluation_that_has_it():
    group = RunGroup("a", np.array([[1.0, 2.0, 5.0, 5.0], [0.0, 0.0, 1.0, 4.0]]))
    assert group.evaluations_to_reach(2.0).tolist() == [2.0, 4.0]
    assert group.evaluations_to_reach(5.0).tolist() == [3.0, np.inf]
    assert group.quartiles()[1].tolist() == [0.5, 1.0, 3.0, 4.5]


def test_the_table_has_medians_and_quartiles_and_a_dash_where_they_were_not_reached():
    volumes = np.array([[1.0, 2.0, 5.0, 10.0], [0.0, 0.0, 10.0, 10.0], [0.0, 9.0, 9.0, 9.0], [0.0, 0.0, 0.0, 9.2]])
    _, row = comparison_table([RunGroup("a", volumes)], 10.0)
    assert row == ["a", "4", "4", "96 [91.50, 100]", "3.5 [2.75, 4]", "– [3.75, –]", "– [3.75, –]"]
    assert comparison_table([RunGroup("a", volumes[:1])], 10.0)[1] == ["a", "1", "4", "100", "4", "4", "4"]


@pytest.mark.parametrize(
    ("name", "groups"),
    [("short", 9), ("short", 10), ("$x_1$ ", 1), ("_hidden", 60), ("W" * 60, 9), ("several\nlines\n" * 9, 20)],
)
def test_curves_are_seen_and_all_groups_named(name, groups):
    front = np.array([[1.0, 2.0], [2.0, 3.0]])
    found = [RunGroup(f"{name}{i}", np.array([[1.0, 2.0]]), front=front, fronts=(front,)) for i in range(groups)]
    panels = front_panels(found, [Objective("a", "max"), Objective("b", "min")])
    for figure in (curves_figure(found, 2.0, "a, b"), fronts_figure(found, panels)):
        FigureCanvasAgg(figure).draw()
        axes = figure.axes[0]
        legend = axes.get_legend() or figure.legends[0]
        words = [text.get_text() for text in legend.get_texts()]
        assert len(words) == groups and max(map(len, words)) <= 100 and "\n" not in words[0]
        assert len(name) > 60 or words == [f"{group.label} (1 run)" for group in found]
        named, curves = legend.get_window_extent(), axes.get_window_extent()
        assert min(named.x0, named.y0) >= 0 and named.x1 <= figure.bbox.x1 and named.y1 <= figure.bbox.y1
        assert curves.width > 500 and curves.height > 300
        assert axes.get_legend() or curves.x1 <= named.x0


class Cells(HTMLParser):
    def __init__(self):
        super().__init__()
        self.cells, self.outside = [], []

    def handle_starttag(self, tag, attrs):
        assert tag != "script"
        self.outside += [value for name, value in attrs if name in ("src", "href") and not value.startswith("#")]

    def handle_data(self, data):
        self.cells.append(data)


def test_the_page_stands_alone_and_has_the_table(runs):
    page, rows, _ = write_comparison([runs], runs)
    parser = Cells()
    parser.feed(page.read_text())
    assert sorted(parser.outside) == sorted(f"{path.parent.name}/report.html" for path in runs.glob("*/summary.json"))
    assert {cell for row in rows for cell in row} <= set(parser.cells)
    assert (runs / "comparison.png").stat().st_size > 1000
    with (runs / "comparison.csv").open() as file:
        header, *lines = list(csv.reader(file))
    assert header[:6] == [
        "settings",
        "runs",
        "evaluations",
        *(f"hypervolume_percent{part}" for part in ("", "_lower", "_upper")),
    ]
    for line, row in zip(lines, rows[1:], strict=True):
        assert line[:3] == row[:3]
        median, low, high = map(float, line[3:6])
        assert low <= median <= high <= 100 + 1e-9 and f"{median:.4g}" == f"{float(row[3].split(' ')[0]):.4g}"
        for i, column in enumerate(row[4:]):
            assert (line[6 + 3 * i] == "") == column.startswith("–")


def evaluated(folder):
    """Accuracy and cost of all networks of a run."""
    with (folder / "evaluations.csv").open() as file:
        return np.array([(float(row["acc"]), float(row["cost"])) for row in csv.DictReader(file)])


def test_a_group_s_front_is_that_of_all_networks_of_its_runs(runs):
    groups, _ = group_runs(read_traces(run_folders([runs])))
    for group in groups:
        values = np.concatenate([evaluated(folder) for folder in group.folders])
        assert {tuple(row) for row in group.front} == {tuple(row) for row in values[brute_front(values * [-1, 1])]}
        for folder, front in zip(group.folders, group.fronts, strict=True):
            own = evaluated(folder)
            assert {tuple(row) for row in front} == {tuple(row) for row in own[brute_front(own * [-1, 1])]}
    (panel,) = front_panels(groups, read_run(groups[0].folders[0]).objectives)
    for group, points, stairs, faint in zip(groups, panel.points, panel.stairs, panel.faint, strict=True):
        assert (panel.x.name, panel.y.name) == ("cost", "acc")
        assert set(points) == {(cost, accuracy) for accuracy, cost in group.front} and set(points) <= set(stairs)
        assert len(faint) == 3
    page, _, _ = write_comparison([runs], runs)
    text = page.read_text()
    assert (runs / "comparison-fronts.png").stat().st_size > 1000
    figure = text[text.index('id="fronts"') : text.index("Evaluations needed")]
    assert figure.count('class="dot"') == sum(len(group.front) for group in groups)
    assert figure.count('class="line faint') == 6 and figure.count('class="line"') == 2
    for group in groups:
        assert f"{group.label} (3 runs)" in figure


@pytest.mark.parametrize(("objectives", "panels"), [(["max:acc"], 0), (["max:acc", "min:cost", "min:width"], 3)])
def test_fronts_of_three_objectives_are_shown_in_pairs_and_of_one_not_at_all(tmp_path, objectives, panels):
    net = supernets.create("tabular", table=write_table(tmp_path / "table.csv"), genes=GENES)
    for tactic in ("random", "full"):
        nasjax.search(net, objectives=objectives, tactic=tactic, evaluations=12, run=tmp_path / "runs" / tactic)
    page, _, _ = write_comparison([tmp_path / "runs"], tmp_path / "out")
    assert page.read_text().count("fronts of 2 groups") == panels
    assert (tmp_path / "out" / "comparison-fronts.png").exists() == bool(panels)


def test_a_tactic_has_the_same_colour_in_every_comparison():
    for names in (list(TACTICS), list(ALGORITHMS)):
        alone = {name: group_colours([name])[0] for name in names}
        assert group_colours(names[::-1]) == [alone[name] for name in names[::-1]]
        assert len(set(alone.values())) == len(names)
    assert group_colours(["random"]) == group_colours(["random, evaluations=8", "random"])[1:]


def test_groups_have_different_colours_as_long_as_there_are_enough():
    labels = [f"evaluations={2**i}" for i in range(len(COLOURS) - 3)] + ["ehvi", "ehvi, seed=1", "full"]
    colours = group_colours(labels)
    assert sorted(colours) == list(range(len(COLOURS)))
    assert group_colours(labels[::-1]) == colours[::-1]
    assert len(group_colours([*labels, "one more"])) == len(labels) + 1
    assert max(NAMES.values()) < len(COLOURS)
    style = (TEMPLATES / "style.css").read_text()
    for i, colour in enumerate(COLOURS):
        assert f"--s{i}: {colour};" in style and f".s{i} {{ --series: var(--s{i}); }}" in style


def every_sign(differences):
    """The p-value of the signed-rank test, by all signs that the differences could have had."""
    ranks = np.argsort(np.argsort(np.abs(differences))) + 1
    seen = min(ranks[differences > 0].sum(), ranks[differences < 0].sum())
    sums = [
        sum(rank for rank, sign in zip(ranks, signs, strict=True) if sign) for signs in product((0, 1), repeat=len(ranks))
    ]
    return min(1.0, 2 * np.mean([total <= seen for total in sums]))


def test_groups_are_tested_over_their_common_seeds():
    rng = np.random.default_rng(0)
    volumes = {name: rng.normal(shift, 1, (8, 5)).cumsum(1) + 20 for name, shift in (("a", 1.0), ("b", 0.4), ("c", 0.0))}
    orders = {"a": range(8), "b": range(7, -1, -1), "c": range(8)}
    groups = [RunGroup(name, v[list(orders[name])], tuple(map(str, orders[name]))) for name, v in volumes.items()]
    groups.append(RunGroup("few", volumes["a"][:5, :3], tuple("01234")))
    _, *rows = significance_table(groups, 50.0)
    assert [row[:4] for row in rows] == [[a, b, "8", "5"] for a, b in (("a", "b"), ("a", "c"), ("b", "c"))]
    alone = [every_sign(volumes[row[0]][:, -1] - volumes[row[1]][:, -1]) for row in rows]
    for row, p in zip(rows, holm(alone), strict=True):
        assert float(row[5]) == pytest.approx(p, rel=1e-2)
        assert float(row[4]) == pytest.approx(2 * np.median(volumes[row[0]][:, -1] - volumes[row[1]][:, -1]), rel=1e-2)
    same = [RunGroup(name, volumes["a"], tuple(map(str, range(8)))) for name in "xy"]
    assert significance_table(same, 50.0)[1][4:] == ["+0", "1"]
    assert len(significance_table(groups[3:], 50.0)) == 1


def test_the_page_says_why_nothing_is_tested():
    volumes = np.arange(12.0).reshape(4, 3)
    groups = [RunGroup(name, volumes, seeds) for name, seeds in (("a", ("0", "1", "2", "3")), ("b", ("1", "2", "3", "4")))]
    assert "<p>No test: it needs 6 common seeds, there are 3.</p>" in _tested(groups, 50.0)
    apart = [groups[0], RunGroup("c", volumes, ("3", "5", "6", "7"))]
    assert "there is 1." in _tested(apart, 50.0)
    assert _tested(groups[:1], 50.0) == ""


def test_p_values_are_adjusted_by_holm_s_method():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0] and holm([]) == []


def test_a_page_may_be_named_as_a_file(runs, tmp_path):
    page, _, _ = write_comparison([runs], tmp_path / "new" / "mine.html")
    assert page == tmp_path / "new" / "mine.html"
    assert sorted(path.name for path in page.parent.iterdir()) == [*("mine-fronts.png", "mine.csv", "mine.html", "mine.png")]
    for link in re.findall('href="([^"#]+)"', page.read_text()):
        assert (page.parent / unquote(link)).is_file()


def test_report_compares_folders(runs, capsys, tmp_path):
    assert main(["report", str(runs)]) == 0
    assert (runs / "comparison.html").is_file()
    assert main(["report", str(runs / "full-0"), str(runs / "random-0"), "--out", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "comparison.html").is_file()
    assert main(["report", str(runs), str(tmp_path / "empty")]) == 2
    assert "holds no finished run" in capsys.readouterr().err


def test_other_objectives_cannot_be_compared(runs):
    net = supernets.create("tabular", table=str(runs.parent / "table.csv"), genes=GENES)
    nasjax.search(net, objectives=["max:acc"], tactic="random", evaluations=5, run=runs / "one")
    with pytest.raises(ValueError, match="other objectives"):
        write_comparison([runs], runs)


def test_evaluate_measures_what_a_csv_names(runs, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["evaluate", f"run={runs / 'full-0'}", "out=again.csv"]) == 0
    with Path("again.csv").open() as again, (runs / "full-0" / "pareto.csv").open() as before:
        for new, old in zip(csv.DictReader(again), csv.DictReader(before), strict=True):
            assert all(new[name] == old[name] for name in (*GENES, "acc", "cost"))
    words = ["supernet=tabular", f"supernet.table={runs.parent / 'table.csv'}", f"supernet.genes=[{','.join(GENES)}]"]
    Path("mine.csv").write_text("d,a,b,c,e,note\n1,3,2,,,x\n3,7,6,5,4,y\n")
    assert main(["evaluate", *words, "archs=mine.csv"]) == 0
    with Path("evaluated.csv").open() as file:
        assert [row["cost"] for row in csv.DictReader(file)] == ["16.0", str(30.0 + 42 + 15 + 20)]
    for text, said in {
        "d,a,b,c\n": "has no rows",
        "d,a,b,c\n1,3,2,\n": "has no column 'e'",
        "d,a,b,c,e\n1,4,2,,\n": "line 2: gene 'a' cannot be '4'",
        "d,a,b,c,e\n2,3,2,,\n": "line 2: gene 'c' is missing",
    }.items():
        Path("wrong.csv").write_text(text)
        assert main(["evaluate", *words, "archs=wrong.csv", "out=none.csv"]) == 2
        assert said in capsys.readouterr().err
    assert not Path("none.csv").exists()
    assert main(["evaluate", *words]) == 2
    assert main(["evaluate", *words, "archs=mine.csv", "split=test"]) == 2


def test_list_has_a_line_for_every_name(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["list"]) == 0
    printed = capsys.readouterr().out
    for group, names in GROUPS.items():
        for name in names:
            line = next(line for line in printed.splitlines() if line.strip().startswith(f"{group}={name} "))
            assert len(line.split()) > 3


def test_settings_of_one_tactic_are_told_apart(tmp_path):
    net = supernets.create("tabular", table=write_table(tmp_path / "table.csv"), genes=GENES)
    for tactic, population, seed in (("random", 2, 0), ("random", 5, 0), ("random", 5, 1), ("full", 4, 0)):
        nasjax.search(
            net, objectives=["max:acc", "min:cost"], tactic={"name": tactic, "population": population}, evaluations=9,
            seed=seed, run=tmp_path / "runs" / f"{tactic}{population}{seed}",
        )  # fmt: skip
    found, _ = group_runs(read_traces(run_folders([tmp_path / "runs"])))
    assert {group.label: len(group.volumes) for group in found} == {
        "full": 1,
        "random, tactic.population=2": 1,
        "random, tactic.population=5": 2,
    }


def test_what_a_tactic_does_not_read_makes_no_other_curve(tmp_path):
    net = supernets.create("tabular", table=write_table(tmp_path / "table.csv"), genes=GENES)
    for tactic, predictor in (("random", "ridge"), ("random", "svr"), ("full", "ridge"), ("concurrent", "ridge")):
        run = tmp_path / "runs" / f"{tactic}-{predictor}"
        nasjax.search(net, objectives=["max:acc"], tactic=tactic, predictor=predictor, evaluations=6, run=run)
    found = compare(read_traces(run_folders([tmp_path / "runs"])))
    assert {group.label: len(group.volumes) for group in found.groups} == {"random": 1, "full": 1, "concurrent": 1}
    assert [remark.split(" is left out")[0] for remark in found.remarks] == [str(tmp_path / "runs" / "random-svr")]


def test_other_budgets_are_other_curves_and_each_seed_counts_once(tmp_path, capsys):
    net = supernets.create("tabular", table=write_table(tmp_path / "table.csv"), genes=GENES)
    for name, budget, seed in (("a", 32, 0), ("b", 32, 1), ("c", 4, 0), ("d", 4, 1), ("e", 32, 0), ("f", 4, 1)):
        goals = ["max:acc", "min:cost"]
        archive = tmp_path / f"{name}.db"  # Where values are stored is no difference.
        nasjax.search(
            net,
            objectives=goals,
            tactic="random",
            evaluations=budget,
            seed=seed,
            run=tmp_path / "runs" / name,
            archive=archive,
        )
    _, rows, remarks = write_comparison([tmp_path / "runs"], tmp_path / "out")
    assert [row[:3] for row in rows[1:]] == [["evaluations=32", "2", "32"], ["evaluations=4", "2", "4"]]
    left_out = [("e", "a"), ("f", "d")]
    assert remarks == [
        f"{tmp_path / 'runs' / one} is left out: it has the settings and the seed of {tmp_path / 'runs' / other}"
        for one, other in left_out
    ]
    alone, *_ = group_runs(read_traces([tmp_path / "runs" / name for name in "ab"]))[0]
    pooled = group_runs(read_traces([tmp_path / "runs" / name for name in "abcd"]))[0][0]
    np.testing.assert_array_equal(alone.volumes, pooled.volumes)
    assert main(["report", str(tmp_path / "runs"), "--out", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out.count("is left out: it has the settings and the seed of") == 2
    assert (tmp_path / "out" / "comparison.html").read_text().count("is left out") == 2


def test_a_run_that_ended_early_is_no_part_of_the_finished_ones(tmp_path):
    net = supernets.create("tabular", table=write_table(tmp_path / "table.csv"), genes=GENES)
    for seed, evaluations in ((0, 20), (1, 20), (2, 10)):
        folder = tmp_path / "runs" / str(seed)
        nasjax.search(
            net, objectives=["max:acc", "min:cost"], tactic="random", evaluations=evaluations, seed=seed, run=folder
        )
        config = (folder / "config.yaml").read_text()
        (folder / "config.yaml").write_text(config.replace("evaluations: 10", "evaluations: 20"))  # As minutes= leaves it.
    found, _ = group_runs(read_traces(run_folders([tmp_path / "runs"])))
    assert {group.label: group.volumes.shape for group in found} == {
        "evaluations=20": (2, 20),
        "evaluations=10 of 20": (1, 10),
    }


def test_searches_in_super_networks_that_were_trained_alike_are_one_group(tmp_path):
    """Where a training's record lies beside the weights, its method tells groups apart, and not the weights' place."""
    net = supernets.create("tabular", table=write_table(tmp_path / "table.csv"), genes=GENES)
    runs = []
    for number, (method, trained, seed) in enumerate(
        [("sandwich", 0, 0), ("sandwich", 1, 1), ("plain", 0, 0), ("plain", 0, 1)]
    ):
        folder = tmp_path / "trained" / f"{method}-{trained}"
        folder.mkdir(parents=True, exist_ok=True)
        record = {"settings": {"trainer": {"name": method, "epochs": 3}}, "seed": trained}
        (folder / "record.json").write_text(json.dumps(record))
        runs.append(tmp_path / "runs" / str(number))
        nasjax.search(net, objectives=["max:acc"], tactic="random", evaluations=6, seed=seed, run=runs[-1])
        config = runs[-1] / "config.yaml"
        weights = f"supernet:\n  checkpoint: {folder / 'supernet.safetensors'}\n"
        config.write_text(config.read_text().replace("supernet:\n", weights))
    found = compare(read_traces(runs))
    assert {group.label: group.seeds for group in found.groups} == {
        "sandwich": ("0", "1"),
        "plain": ("0", "1 (trained with 0)"),
    }
    (tmp_path / "trained" / "plain-0" / "record.json").write_text('{"settings": []}')  # Another file of that name.
    assert [group.label for group in compare(read_traces(runs)).groups] == ["sandwich", "no trainer"]
