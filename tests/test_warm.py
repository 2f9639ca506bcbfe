"""Warm starts: every kind of file, their ranking by the new goals, and one-line errors for unsuitable files."""

import csv
import math
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tables import GENES, write_table

import nasjax
from nasjax.algorithms import NSGA2
from nasjax.cli import main
from nasjax.objectives import parse_goals
from nasjax.pareto import non_dominated_sort
from nasjax.predictors import GaussianProcess, Inputs, Ridge
from nasjax.searches.dynast import import_results
from nasjax.searches.problem import search_problem
from nasjax.searches.tactic_problem import tactic_problem
from nasjax.searches.warm_start import read_warm_start
from nasjax.space import Gene, SearchSpace
from nasjax.tactics import TACTICS, Measured, Problem, Warm, ehvi
from nasjax.tactics.predicting import fit_predictors, prediction
from nasjax.tactics.priors import measured_alike, read_by_predictors, training_rows, with_prior

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
    problem = search_problem(net, None)
    goals = parse_goals(objectives, constraints, problem.measurable)
    return read_warm_start(place, problem, goals, net)


def measured(path):
    with (path / "evaluations.csv").open() as file:
        return list(csv.DictReader(file))


def encoded(net, row):
    return net.space.encode({g: int(row[g]) for g in GENES if row[g]}).tolist()


@pytest.mark.parametrize("place", ["run", "run/evaluations.csv", "shared.db"])
def test_every_kind_of_file_gives_the_same_networks_best_first(net, earlier, place):
    warm = begin(earlier / place, net, ["max:acc", "min:cost"])
    assert len(warm.archs) == 40
    values = net(warm.archs)
    np.testing.assert_allclose(warm.values, np.stack([-values["acc"], values["cost"]], 1))
    ranks = np.asarray(non_dominated_sort(warm.values))
    assert (np.diff(ranks) >= 0).all()


def test_networks_are_ranked_by_the_new_objectives_and_constraints(net, earlier):
    warm = begin(earlier / "run", net, ["min:width"], ["acc>=85"])
    kept = warm.values[:, 1] >= 85
    assert kept.any() and kept[: kept.sum()].all()
    assert (np.diff(warm.values[kept, 0]) >= 0).all()


def test_the_earlier_front_comes_first_where_no_new_objective_was_measured(net, earlier, tmp_path):
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


SLOW = ("full_on_estimations", "weaknas")


@pytest.mark.parametrize(
    "tactic",
    [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in TACTICS if name != "proxy"],
)
def test_every_tactic_measures_the_best_of_a_warm_start_first(net, earlier, tactic, tmp_path):
    warm = begin(earlier / "run", net, ["max:acc", "min:cost"])
    nasjax.search(net, objectives=["max:acc", "min:cost"], tactic={"name": tactic, **SETTINGS.get(tactic, {})},
                  evaluations=24, run=tmp_path / "run", warm_start=earlier / "run")  # fmt: skip
    first = 11 if tactic == "ehvi" else 16  # Of whose start of 16 the others are spread over all sizes.
    found = [encoded(net, row) for row in measured(tmp_path / "run")]
    assert sorted(found[:first]) == sorted(warm.archs[:first].tolist())


def test_two_thirds_of_the_default_start_are_the_best_of_a_warm_start_the_others_are_of_all_sizes():
    space = SearchSpace(tuple(Gene(f"g{i}", tuple(range(6))) for i in range(8)))
    archs = np.asarray(space.sample(jax.random.key(0), 30))
    sizes, unlimited = archs.sum(1), ((-np.inf, np.inf),) * 2
    warm = Warm(archs, np.stack([-sizes, sizes], 1).astype(float))
    costs, reference = (None, lambda archs: 1.0 * jnp.asarray(archs).sum(1)), np.array([9.0, 99.0])
    problem = Problem(space, 99, costs, NSGA2(), GaussianProcess(), reference, unlimited, Inputs(space), warm=warm)
    for start in (1, 2, 9, 10):
        found = ehvi.Ehvi(start=start).ask(Measured.empty(jax.random.key(1), problem))[0]
        best = math.ceil(2 * start / 3)
        assert found.tolist()[:best] == archs[:best].tolist() and len(found) == start
        sizes = found[best:].sum(1)
        assert start < 9 or (sizes[0] == 0 and sizes[-1] == 40 and (np.diff(sizes) > 5).all())
    # Of a search that measured none of the objectives nothing is known to be best.
    other = replace(problem, warm=warm._replace(values=np.full((30, 2), np.nan)))
    found = [ehvi.Ehvi().ask(Measured.empty(jax.random.key(1), each))[0] for each in (other, replace(problem, warm=None))]
    np.testing.assert_array_equal(*found)


def test_every_third_step_of_the_default_does_without_what_the_earlier_search_measured(monkeypatch):
    space, read = SearchSpace((Gene("a", tuple(range(12))), Gene("b", tuple(range(12))))), []
    archs = np.asarray(space.sample(jax.random.key(0), 30))
    values = np.stack([np.cos(archs[:, 0] + archs[:, 1]), archs.sum(1)], 1).astype(float)
    costs, unlimited = (None, lambda archs: 1.0 * jnp.asarray(archs).sum(1)), ((-np.inf, np.inf),) * 2
    problem = Problem(space, 99, costs, NSGA2(), GaussianProcess(steps=2), np.array([9.0, 99.0]), unlimited, Inputs(space),
                      warm=Warm(archs, values))  # fmt: skip

    def fit(state, rest):
        read.append(read_by_predictors(state, rest).inputs.prior is not None)
        return fit_predictors(state, rest)

    monkeypatch.setattr(ehvi, "fit_predictors", fit)
    tactic = ehvi.Ehvi(start=4, batch=1)
    state = tactic.init(jax.random.key(1), problem)
    for _ in range(8):
        asked, state = tactic.ask(state)
        state = tactic.tell(state, asked, np.stack([np.sin(asked[:, 0]), asked.sum(1)], 1))
        assert state.problem.inputs.prior is not None
    assert read == [True, True, False, True, True, False, True]


def on_another_device():
    """A problem whose warm start has the same accuracies and other latencies, and the functions of both."""
    space = SearchSpace(tuple(Gene(f"g{i}", tuple(range(5))) for i in range(5)))

    def accuracy(archs):
        return np.cos(archs.sum(1) / 4) + archs[:, 0] * archs[:, 1] / 9

    def latency(archs):
        return 1.0 + archs @ np.array([1, 2, 1, 3, 2])

    archs = np.unique(space.sample(jax.random.key(3), 60), axis=0)
    earlier = np.stack([accuracy(archs), latency(archs[:, ::-1]) ** 2], 1)
    problem = Problem(space, 99, (None, None), NSGA2(), Ridge(), np.array([9.0, 99.0]), UNLIMITED, Inputs(space),
                      warm=Warm(archs, earlier))  # fmt: skip
    return problem, accuracy, latency


UNLIMITED = ((-np.inf, np.inf),) * 2


def test_what_an_earlier_search_measured_alike_is_data_and_no_prior():
    problem, accuracy, latency = on_another_device()
    archs = np.concatenate([problem.warm.archs[:4], np.asarray(problem.space.sample(jax.random.key(4), 8))])
    empty = Measured.empty(jax.random.key(0), with_prior(problem))
    state = empty.add(archs, np.stack([accuracy(archs), latency(archs)], 1))
    assert measured_alike(state).tolist() == [True, False]
    models, fitted = fit_predictors(state)
    assert len(problem.warm.values.T) == len(empty.problem.inputs.prior.models) == 2
    assert len(models.prior.models) == 1
    # The errors are those of networks that this search has measured.
    assert [fit.rows for fit in fitted.fits] == [12, 12]
    everything = np.asarray(problem.space.sample(jax.random.key(5), 50))
    predicted = prediction(problem)
    found = np.asarray(predicted.means(models, predicted.describe(models.prior, everything)))[:, 0]
    # As a search that measured all these networks itself.
    known = archs.tolist()
    both = np.concatenate([archs, [arch for arch in problem.warm.archs if arch.tolist() not in known]])
    inputs = read_by_predictors(state).inputs
    alone = problem.predictor.fit(inputs, both, accuracy(both).astype(np.float32))
    np.testing.assert_allclose(problem.predictor.predict(inputs, alone, everything)[0], found, atol=2e-3)


@pytest.mark.parametrize(
    ("change", "alike"),
    [
        (lambda values: values, [True, False]),
        (lambda values: values[:2], [False, False]),  # Two networks prove nothing,
        (lambda values: np.where(np.arange(6)[:, None] < 4, values[:1], np.nan), [False, False]),  # nor do equal values.
        (lambda values: values + np.where(np.arange(6) == 5, 1e-3, 0)[:, None], [False, False]),  # One may differ by noise.
        (lambda values: np.where(np.arange(6)[:, None] == 5, np.nan, values), [True, False]),  # One has failed.
    ],
)
def test_columns_are_measured_alike_by_three_values_without_exception(change, alike):
    problem, accuracy, latency = on_another_device()
    archs = problem.warm.archs[:6]
    values = change(np.stack([accuracy(archs), latency(archs)], 1))
    state = Measured.empty(jax.random.key(0), problem).add(archs[: len(values)], values)
    assert measured_alike(state).tolist() == alike
    exact = replace(problem, costs=(lambda archs: 1.0 * jnp.asarray(archs).sum(1), None))
    assert not measured_alike(replace(state, problem=exact)).any()


def test_measured_rows_come_before_those_of_the_warm_start_as_far_as_there_is_room():
    problem, accuracy, latency = on_another_device()
    archs = problem.warm.archs[10:15]
    state = Measured.empty(jax.random.key(0), problem).add(archs, np.stack([accuracy(archs), latency(archs)], 1))
    for most, room in ((np.inf, len(problem.warm.archs) - 5), (40, 35), (5, 0)):
        rows, values, counts, measured = training_rows(state, most)
        assert measured == 5 and counts.sum() == 5 + room
        assert rows[:5].tolist() == archs.tolist() and not set(map(bytes, archs)) & set(map(bytes, rows[5:][counts[5:]]))
        np.testing.assert_allclose(values[counts, 0], accuracy(rows[counts]), rtol=1e-6)
        assert np.isfinite(values[:5, 1]).all() and np.isnan(values[5:, 1]).all()


def test_a_search_from_a_warm_start_that_is_extended_measures_what_a_long_one_does(net, earlier, tmp_path):
    # After a whole batch: the start of ten and two batches of five.
    for run, budgets in (("long", (36,)), ("short", (20, 36))):
        for evaluations in budgets:
            nasjax.search(net, objectives=["max:acc", "min:cost"], tactic="ehvi", predictor="ridge", evaluations=evaluations,
                          run=tmp_path / run, warm_start=earlier / "run")  # fmt: skip
    one, other = ([encoded(net, row) for row in measured(tmp_path / run)] for run in ("long", "short"))
    assert len(one) == 36 and one == other


def table_of(path, rows):
    """A folder with these rows as evaluations.csv and, the first of them, as pareto.csv."""
    path.mkdir(parents=True)
    for name, some in (("evaluations.csv", rows), ("pareto.csv", rows[:1])):
        with (path / name).open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0].keys())
            writer.writeheader()
            writer.writerows(some)
    return path


def plain(rows, **metrics):
    """The genes of rows, and metrics made of them."""
    return [{**{g: row[g] for g in GENES}, **{name: made(row) for name, made in metrics.items()}} for row in rows]


def test_several_searches_are_interleaved_and_those_that_agree_are_one(net, earlier, tmp_path):
    rows = measured(earlier / "run")
    same, other = (lambda row: row["acc"]), (lambda row: str(90 - float(row["acc"])))
    for name, some, acc in (("a", rows[:25], same), ("b", rows[20:], same), ("c", rows[:30], other)):
        table_of(tmp_path / "runs" / name, plain(some, acc=acc, cost=lambda row: row["cost"]))
    warm = begin(tmp_path / "runs", net, ["max:acc", "min:cost"])
    assert sorted(map(bytes, warm.archs)) == sorted(bytes(np.array(encoded(net, row), np.int32)) for row in rows)
    assert warm.targets.shape == (40, 4) and np.isfinite(warm.targets).sum(0).tolist() == [40, 40, 30, 30]
    np.testing.assert_allclose(warm.values, np.stack([-net(warm.archs)["acc"], net(warm.archs)["cost"]], 1))
    of_c = np.isfinite(warm.targets[:, 2])
    np.testing.assert_allclose(warm.targets[of_c, 2], net(warm.archs[of_c])["acc"] - 90)
    joined, third = (
        begin(place, net, ["max:acc", "min:cost"]).archs.tolist() for place in (earlier, tmp_path / "runs" / "c")
    )
    assert warm.archs[0].tolist() in joined[:2] and warm.archs[1].tolist() == third[0]  # The two ends of a front are equals.


def test_a_search_of_other_metrics_is_a_prior_by_all_of_them(net, earlier, tmp_path):
    rows = measured(earlier / "run")
    other = {"score": lambda row: str(float(row["acc"]) ** 2), "score_se": lambda row: "1", "seconds": lambda row: "2"}
    warm = begin(table_of(tmp_path / "run", plain(rows, **other)), net, ["max:acc", "min:cost"])
    assert np.isnan(warm.values).all() and warm.lacking == ((),)
    np.testing.assert_allclose(warm.targets[:, 0], net(warm.archs)["acc"] ** 2, rtol=1e-6)
    assert warm.archs[0].tolist() == encoded(net, rows[0])  # Its front first.


def test_genes_that_an_earlier_network_lacks_have_their_last_options_and_no_say(net, earlier, tmp_path, caplog):
    rows = [{name: row[name] for name in ("d", "a", "b", "c", "acc")} for row in measured(earlier / "run")]
    place = table_of(tmp_path / "run", rows)
    warm = begin(place, net, ["max:acc", "min:cost"])
    assert "has no e: their last options are taken" in caplog.text
    last = GENES.index("e")
    deep = warm.archs[:, GENES.index("d")] == 2
    assert (warm.archs[deep, last] == 2).all() and warm.lacking == ((last,),)
    problem = search_problem(net, None)
    goals = parse_goals(["max:acc", "min:cost"], (), problem.measurable)
    chosen = tactic_problem(problem, goals, NSGA2(), GaussianProcess(), 24, warm)
    archs = np.repeat(warm.archs[deep][:1], 3, axis=0)
    archs[:, last] = range(3)
    first, *others = np.asarray(with_prior(chosen).inputs.prior.features(archs))[:, 0]
    assert others == [first, first]
    (tmp_path / "few.csv").write_text("d,a,acc\n1,3,70\n")
    with pytest.raises(ValueError, match="has no column 'b': it is of another search space"):
        begin(tmp_path / "few.csv", net, ["max:acc"])


@pytest.mark.slow
def test_a_prior_of_another_metric_saves_evaluations(net, tmp_path):
    """From a table of a score that orders networks as accuracy does, the best accuracy is found sooner."""
    archs = net.space.all_architectures()
    options, values = net.space.options_of(archs), net(archs)["acc"]
    rows = [
        {**dict(zip(GENES, row, strict=True)), "score": float(np.exp(v / 20))}
        for row, v in zip(options, values, strict=True)
    ]
    with (tmp_path / "scores.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows[::3])
    goals = {"objectives": ["max:acc"], "tactic": "ehvi", "predictor": "gaussian_process", "evaluations": 20}
    warm = nasjax.search_seeds(net, range(12), **goals, warm_start=tmp_path / "scores.csv").hypervolumes
    cold = nasjax.search_seeds(net, range(12), **goals).hypervolumes
    # The start is that of a cold search; what follows it knows more.
    np.testing.assert_allclose(warm[:, :10], cold[:, :10])
    assert (warm[:, -1] == cold.max()).all()
    assert warm[:, 10:].mean() > cold[:, 10:].mean()


def test_unsuitable_warm_starts_are_refused_in_one_line(net, earlier, tmp_path, capsys):
    table = write_table(tmp_path / "table.csv")
    words = ["search", "supernet=tabular", f"supernet.table={table}", "supernet.genes=[d,a,b,c,e]", "evaluations=20",
             "objectives=[max:acc,min:cost]", f"run={tmp_path / 'run'}"]  # fmt: skip
    (tmp_path / "other.csv").write_text("x,acc\n1,2\n")
    (tmp_path / "none.csv").write_text("d,a,b,c,e,acc\n9,9,9,9,9,1\n")
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "short.csv").write_text("d,a,b,c,e,acc\n1,3,2,,,80\n1,3\n")
    (tmp_path / "binary.csv").write_bytes(b"d,a,b\n\xed\xed\n")
    # Another space of the same shape, and another table of the same space.
    foreign = (tmp_path / "table.csv").read_text().replace("d,a,b,c,e,", "p,q,r,s,t,", 1)
    (tmp_path / "foreign.csv").write_text(foreign)
    (tmp_path / "second.csv").write_text((tmp_path / "table.csv").read_text().replace("61.", "62."))
    for file, genes, archive in (("foreign", "pqrst", "foreign"), ("table", GENES, "two"), ("second", GENES, "two")):
        other = nasjax.supernets.create("tabular", table=str(tmp_path / f"{file}.csv"), genes=tuple(genes))
        nasjax.search(other, objectives=["max:acc"], tactic="random", evaluations=5, archive=tmp_path / f"{archive}.db")
    for place, said in {
        "missing": "there is no such file or folder",
        ".": "is not a finished run, and has none in it",
        "other.csv": "has no column 'd'",
        "none.csv": "has no architecture of this search space",
        "empty.csv": "is empty",
        "short.csv": "line 3 has 2 cells where the header has 6",
        "binary.csv": "cannot be read as CSV",
        "foreign.db": "has no architecture of this search space",
        "two.db": "holds measurements of 2 super-networks",
    }.items():
        assert main([*words, f"warm_start={tmp_path / place}"]) == 2
        error = capsys.readouterr().err
        assert said in error and error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_blank_lines_and_a_byte_order_mark_are_ignored(net, earlier, tmp_path):
    text = (earlier / "run" / "evaluations.csv").read_text()
    (tmp_path / "marked.csv").write_bytes(b"\xef\xbb\xbf" + text.encode() + b"\r\n\r\n")
    expected = begin(earlier / "run" / "evaluations.csv", net, ["max:acc"])
    found = begin(tmp_path / "marked.csv", net, ["max:acc"])
    np.testing.assert_array_equal(found.archs, expected.archs)


def test_dynast_results_warm_start_a_search_of_their_imported_table(tmp_path):
    lines = ["Sub-network,Date,Model Parameters,Latency (ms),MACs,Top-1 Acc (%)"]
    for depth, accuracy in ((2, 70.5), (3, 71.5), (4, 72.5)):
        lines.append(f"\"{{'num_layers': [{depth}], 'width': [{64 * depth}]}}\",2022,{depth},0,{depth},{accuracy}")
    (tmp_path / "dynast.csv").write_text("\n".join(lines) + "\n")
    table = import_results([tmp_path / "dynast.csv"])
    with (tmp_path / "table.csv").open("w", newline="") as file:
        csv.writer(file).writerows([table.header, *table.rows])
    net = nasjax.supernets.create("tabular", table=str(tmp_path / "table.csv"), genes=tuple(table.genes))
    warm = begin(tmp_path / "dynast.csv", net, ["accuracy_top1"])
    np.testing.assert_allclose(warm.values[:, 0], [-72.5, -71.5, -70.5])


def rewritten(text):
    """A CSV as pandas writes it again: an index without a name, floats for integers, empty cells for nan."""
    header, *lines = text.splitlines()
    cells = [[f"{cell}.0" if cell.isdecimal() else cell.replace("nan", "") for cell in line.split(",")] for line in lines]
    return "\n".join([f",{header}", *(",".join([str(i), *row]) for i, row in enumerate(cells))]) + "\n"


def test_what_pandas_wrote_again_is_read_as_before(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    table = ["supernet=tabular", f"supernet.table={write_table(tmp_path / 't.csv', bad=(3, 4))}"]
    table.append(f"supernet.genes=[{','.join(GENES)}]")
    words = ["objectives=[max:acc,min:cost]", "tactic=random", "evaluations=20"]
    assert main(["search", *table, *words, "run=first"]) == 0
    before = Path("first/evaluations.csv").read_text()
    Path("again.csv").write_text(rewritten(before))
    assert Path("again.csv").read_text().count(".0,") > 40 and ",," in Path("again.csv").read_text()
    net = nasjax.supernets.create("tabular", table="t.csv", genes=GENES)
    for file in ("first/evaluations.csv", "again.csv"):
        assert main(["evaluate", *table, f"archs={file}", f"out={Path(file).stem}-out.csv"]) == 0
    assert Path("again-out.csv").read_text() == Path("evaluations-out.csv").read_text()
    old, new = (begin(Path(file), net, ["max:acc", "min:cost"]) for file in ("first/evaluations.csv", "again.csv"))
    np.testing.assert_array_equal(new.archs, old.archs)
    np.testing.assert_array_equal(new.values, old.values)
    old, new = (
        nasjax.supernets.create("tabular", table=file, genes=GENES) for file in ("first/evaluations.csv", "again.csv")
    )
    assert new.space == old.space and new.metrics == old.metrics == ("acc", "cost", "width")
    np.testing.assert_array_equal(new.values, old.values)
