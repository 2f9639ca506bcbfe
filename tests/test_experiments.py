"""What nasjax's tactics are compared with: the problems, the rivals, the counting."""

import csv
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tactic_scripts import DATA, load, needs_tables, scripts  # noqa: F401

from nasjax.pareto import hypervolume_exact

pytestmark = needs_tables


def noisy(problems):
    """NAS-Bench-Macro with noise on its accuracy."""
    return replace(problems.create("macro"), noise=(0.5, 0.0))


# -- problems -------------------------------------------------------------------------------------------------------------


def test_nas_bench_201_is_its_source_row_by_row():
    problem = load("problems").create("nb201:cifar100:raspi4")
    with (DATA / "nb201-accuracy" / "nats_bench.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    latencies = np.load(DATA / "help-latency" / "nasbench201_latency_ms.npz")["raspi4"]
    assert problem.space.size == len(rows) == 15625
    for i in (0, 1, 777, 15624):
        edges = rows[i]["ArchitectureString"]
        words = [part.split("~")[0] for part in edges.split("|") if "~" in part]
        arch = problem.space.encode(dict(zip(problem.space.names, words, strict=True)))
        inputs = [part.split("~")[1] for part in edges.split("|") if "~" in part]
        assert [name[-1] for name in problem.space.names] == inputs
        expected = [-float(rows[i]["CIFAR100TestAccuracy200Epochs"]), latencies[i]]
        np.testing.assert_array_equal(problem.measure(arch[None], seed=3), [expected])


@pytest.mark.parametrize("name", ["nb201:imagenet16:eyeriss", "macro"])
def test_the_front_of_a_table_dominates_all_of_it_and_its_reference_is_the_worst_of_each_column(name):
    problem = load("problems").create(name)
    values = problem.true(problem.archs)
    assert ((problem.front[:, None] <= values).all(2)).any(0).all()
    np.testing.assert_array_equal(problem.reference, values.max(0))
    # Brute force: the area between the reference and the staircase, strip by strip.
    steps = np.sort(np.append(problem.front[:, 0], problem.reference[0]))
    heights = [problem.reference[1] - problem.front[problem.front[:, 0] <= x, 1].min() for x in steps[:-1]]
    assert problem.best["loose"] == pytest.approx((np.diff(steps) * heights).sum(), rel=1e-9)


def test_exact_costs_are_the_true_values_and_measured_ones_are_not_given():
    problems = load("problems")
    macro = problems.create("macro")
    np.testing.assert_allclose(macro.costs[1](macro.archs[:100]), macro.true(macro.archs[:100])[:, 1], rtol=1e-6)
    assert macro.costs[0] is None and problems.create("macro_measured").costs == (None, None)


def test_a_measurement_depends_on_architecture_and_seed_alone():
    problem = noisy(load("problems"))
    archs = problem.archs[100:110]
    values = problem.measure(archs, 0)
    np.testing.assert_array_equal(problem.measure(archs[::-1], 0)[::-1], values)
    np.testing.assert_array_equal(problem.measure(archs[4:5], 0), values[4:5])
    assert (problem.measure(archs, 1)[:, 0] != values[:, 0]).all()
    np.testing.assert_array_equal(values[:, 1], problem.true(archs)[:, 1])
    spread = problem.measure(problem.archs, 0)[:, 0] - problem.true(problem.archs)[:, 0]
    assert abs(spread.mean()) < 0.03 and 0.48 < spread.std() < 0.52


def test_an_unknown_problem_is_refused_in_one_line():
    problems = load("problems")
    for call in (problems.create, problems.matching):
        with pytest.raises(ValueError, match=r"moon.*macro"):
            call("moon")
    assert problems.twins("surrogate_blend") == ["surrogate_blend", "surrogate_blend_zero", "surrogate_blend_inner"]


# -- counting -------------------------------------------------------------------------------------------------------------


def test_a_repeated_architecture_costs_nothing_and_the_budget_is_never_exceeded():
    problem, rivals = load("problems").create("macro"), load("rivals")
    meter = rivals.Meter(problem, 3, seed=0)
    first = meter(problem.archs[[5, 9, 5]])
    np.testing.assert_array_equal(first[0], first[2])
    assert not meter.spent
    rest = meter(problem.archs[[9, 7, 8]])
    assert meter.spent and np.isnan(rest[2]).all() and not np.isnan(rest[:2]).any()
    archs, values = meter.result()
    np.testing.assert_array_equal(archs, problem.archs[[5, 9, 7]])
    np.testing.assert_array_equal(values, problem.true(archs))


@pytest.mark.parametrize("name", ["random", "nsga2_20"])
def test_rivals_spend_their_budget_on_distinct_architectures_and_repeat_themselves_by_seed(name):
    problem, rivals = noisy(load("problems")), load("rivals")
    archs, values = rivals.RIVALS[name](problem, 60, 1)
    assert len(np.unique(archs, axis=0)) == len(archs) == 60
    np.testing.assert_array_equal(values, problem.measure(archs, 1))
    np.testing.assert_array_equal(rivals.RIVALS[name](problem, 60, 1)[0], archs)
    assert (rivals.RIVALS[name](problem, 60, 2)[0] != archs).any()


def test_nasjax_tactics_are_run_with_their_settings():
    anytime, problem = load("anytime"), load("problems").create("macro")
    archs, values = anytime.nasjax_tactic("random,population=7", problem, 20, 0)
    assert len(np.unique(archs, axis=0)) == 20
    np.testing.assert_array_equal(values, problem.true(archs))
    with pytest.raises(ValueError, match="populations"):
        anytime.nasjax_tactic("random,populations=7", problem, 20, 0)


@pytest.mark.parametrize(
    ("methods", "named", "said"),
    [
        ("linas,random", "macro", "no method is named 'linas,random'; there are nasjax:TACTIC and random, linas"),
        ("nasjax:ehvi,random", "macro", "'random' of nasjax:ehvi,random is no setting=value; blanks separate methods"),
        ("nasjax:evi", "macro", "unknown tactic 'evi'"),
        ("random", "mcro", "no problem is named 'mcro'"),
    ],
)
def test_what_cannot_be_run_is_said_before_anything_runs(methods, named, said, tmp_path, monkeypatch, capsys):
    anytime = load("anytime")
    monkeypatch.setattr("sys.argv", ["anytime.py", str(tmp_path / "runs.csv"), "--problems", named, "--methods", methods])
    with pytest.raises(SystemExit, match="2"):
        anytime.main()
    assert said in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


# -- LINAS ----------------------------------------------------------------------------------------------------------------


def measured(number):
    """One-hot inputs and accuracies of random cells of NAS-Bench-201."""
    problem = load("problems").create("nb201:cifar100:raspi4")
    archs = problem.archs[np.random.default_rng(0).permutation(15625)[:number]]
    return load("linas").one_hot(archs, problem.space.counts), problem.true(archs)


@pytest.mark.slow
def test_ridge_scores_are_those_of_a_grid_search():
    from sklearn.linear_model import Ridge
    from sklearn.model_selection import cross_val_score

    linas, (inputs, values) = load("linas"), measured(60)
    scores = linas.ridge_scores(inputs, values[:, 1])
    for i in (0, 37, 99):
        model = Ridge(alpha=linas.ALPHAS[i])
        found = cross_val_score(model, inputs, values[:, 1], scoring="neg_mean_absolute_percentage_error", cv=5)
        assert scores[i] == pytest.approx(-found.mean(), rel=1e-6)


@pytest.mark.slow
def test_the_predictor_is_the_one_that_dynast_takes_and_predicts_as_it_does():
    from sklearn.linear_model import Ridge
    from sklearn.model_selection import GridSearchCV
    from sklearn.svm import SVR

    linas, (inputs, values) = load("linas"), measured(80)
    for column in values.T:
        unit = 10 ** (np.floor(np.log10(np.abs(column).max())) - 1)
        grids = (
            GridSearchCV(Ridge(), {"alpha": linas.ALPHAS}, scoring="neg_mean_absolute_percentage_error"),
            GridSearchCV(
                SVR(gamma="auto", epsilon=0.0), {"C": list(linas.COSTS)}, scoring="neg_mean_absolute_percentage_error"
            ),
        )
        best = max((grid.fit(inputs, column / unit) for grid in grids), key=lambda grid: grid.best_score_)
        found = linas.predict(linas.fit(inputs, column, 128), jnp.asarray(inputs, jnp.float32))
        np.testing.assert_allclose(found, best.predict(inputs) * unit, rtol=2e-3, atol=1e-3 * unit)


def test_crossover_and_mutation_are_pymoos_in_distribution():
    from pymoo.operators.crossover.sbx import cross_sbx
    from pymoo.operators.mutation.pm import mut_pm

    linas, number = load("linas"), 40_000
    counts = np.array([3, 3, 5, 5])
    highest = (counts - 1).astype(float)
    parents = np.array([[0, 1, 1, 4], [2, 2, 3, 0]], float)
    rng = np.random.default_rng(0)
    low = np.zeros(4)
    eta = np.full((number, 1), linas.SBX_ETA)
    theirs = cross_sbx(np.repeat(parents[:, None], number, 1), low, highest, eta, linas.SBX_GENES, np.full((number, 1), 0.5),
                       random_state=rng)  # fmt: skip
    crossed = rng.random(number) < linas.SBX_RATE
    theirs = np.where(crossed[:, None], theirs, parents[:, None])
    one, other = (jnp.broadcast_to(jnp.asarray(parent, jnp.float32), (number, 4)) for parent in parents)
    ours = np.asarray(linas.cross(jax.random.key(0), one, other, jnp.asarray(highest, jnp.float32)))
    ours, theirs = (np.clip(np.round(born), 0, highest) for born in (ours, theirs.reshape(-1, 4)))
    for gene in range(4):
        for value in range(counts[gene]):
            assert np.mean(ours[:, gene] == value) == pytest.approx(np.mean(theirs[:, gene] == value), abs=0.012)

    wide = np.full(4, 40.0)
    start = np.tile([0.0, 11.0, 20.0, 40.0], (number, 1))
    his = mut_pm(start, low, wide, np.full(number, linas.PM_ETA), np.full(number, 0.25), False, random_state=rng)
    his = np.where(rng.random((number, 1)) < linas.PM_RATE, his, start)
    mine = np.asarray(linas.mutate(jax.random.key(1), jnp.asarray(start, jnp.float32), jnp.asarray(wide, jnp.float32)))
    assert np.mean(mine != start) == pytest.approx(np.mean(his != start), abs=0.0008)
    np.testing.assert_allclose(mine.mean(0) - start[0], his.mean(0) - start[0], atol=0.02)
    np.testing.assert_allclose(mine.std(0), his.std(0), rtol=0.25, atol=0.01)


@pytest.mark.slow
def test_linas_measures_fifty_at_a_time_and_charges_repeats(monkeypatch):
    linas, problem = load("linas"), load("problems").create("macro")
    monkeypatch.setattr(linas, "INNER", 1500)
    archs, values = linas.linas(problem, 120, 0)
    assert len(archs) == 120
    np.testing.assert_array_equal(values, problem.true(archs))
    early, late = (hypervolume_exact(problem.true(part), problem.reference) for part in (archs[:50], archs))
    random = load("rivals").random(problem, 120, 0)[0]
    assert late > early and late > hypervolume_exact(problem.true(random), problem.reference)
    free = linas.linas(problem, 60, 0, free=True)[0]
    distinct = archs[np.sort(np.unique(archs, axis=0, return_index=True)[1])]
    assert len(np.unique(free, axis=0)) == len(free) == 60
    np.testing.assert_array_equal(free, distinct[:60])
