"""The yardsticks of the comparison of tactics, and the files that store its runs."""

import csv

import numpy as np
import pytest
from tactic_scripts import ROOT, load, needs_tables, scripts  # noqa: F401

from nasjax.pareto import hypervolume_exact, non_dominated_exact

# -- scores ---------------------------------------------------------------------------------------------------------------


def by_search(points, front, spread):
    """The additive epsilon indicator by its definition: the least shift at which no network of the front is left."""
    shifts = sorted(((points[:, None] - front) / spread).ravel())
    return next(shift for shift in shifts if all(((points - shift * spread <= best + 1e-12).all(1)).any() for best in front))


@pytest.mark.parametrize("objectives", [2, 3])
def test_the_epsilon_indicator_is_the_least_shift_that_dominates_the_whole_front(objectives):
    yardstick, rng = load("yardstick"), np.random.default_rng(objectives)
    for _ in range(30):
        values = rng.random((40, objectives)) * np.array([1.0, 1000.0, 1e-3])[:objectives]
        front, points = values[non_dominated_exact(values)], values[rng.permutation(40)[:6]]
        spread = np.ptp(front, axis=0)
        spread = np.where(spread > 0, spread, 1)
        assert yardstick.epsilon(points, front) == pytest.approx(by_search(points, front, spread))
        assert yardstick.epsilon(values, front) == 0
    assert yardstick.epsilon(np.array([[2.0, 1.0]]), np.array([[1.0, 1.0]])) == 1


def test_volume_is_that_of_the_points_inside_the_reference():
    yardstick, rng = load("yardstick"), np.random.default_rng(0)
    for objectives in (2, 3):
        for _ in range(20):
            points, reference = rng.random((15, objectives)).round(1), np.full(objectives, 0.7)
            inside = points[(points < reference).all(1)]
            expected = hypervolume_exact(inside, reference) if len(inside) else 0.0
            assert yardstick.volume(points, reference) == pytest.approx(expected)


@pytest.mark.parametrize("objectives", [2, 3])
def test_a_curve_scores_the_front_of_each_prefix(objectives):
    yardstick, rng = load("yardstick"), np.random.default_rng(objectives)
    for _ in range(10):
        true = rng.random((40, objectives)).round(1)
        measured = true + rng.normal(0, 0.1, true.shape).round(2)
        measured[rng.integers(0, 40, 4)] = np.nan
        found = yardstick.curve(lambda points: float(points.sum()), measured, true, -1.0)
        for k in range(1, 41):
            rows = np.flatnonzero(non_dominated_exact(measured[:k]))
            # Of rows that measured alike the first.
            rows = rows[np.unique(measured[rows], axis=0, return_index=True)[1]]
            assert found[k - 1] == pytest.approx(true[rows].sum() if len(rows) else -1)


def test_luck_with_noise_earns_nothing():
    yardstick, rng = load("yardstick"), np.random.default_rng(0)
    reference = np.array([1.0, 1.0])
    for _ in range(20):
        true = rng.random((30, 2)).round(1)
        measured = true + rng.normal(0, 0.1, true.shape).round(1) * [1, 0]
        expected = hypervolume_exact(true[non_dominated_exact(measured)], reference)
        found = yardstick.curve(lambda points: yardstick.volume(points, reference), measured, true, 0.0)
        assert found[-1] <= expected + 1e-12
    lucky = np.array([[0.1, 0.5]]), np.array([[0.9, 0.5]])
    assert yardstick.curve(lambda points: yardstick.volume(points, reference), *lucky, 0.0) == pytest.approx([0.05])


def test_in_band_is_the_true_accuracy_of_the_best_measured_network_there():
    yardstick, rng = load("yardstick"), np.random.default_rng(1)
    true = np.stack([-rng.random(60), rng.random(60)], 1)
    measured = true + rng.normal(0, 0.2, true.shape) * [1, 0]
    found = yardstick.in_band(measured, true, (0.4, 0.6))
    for k in range(1, 61):
        rows = [i for i in range(k) if 0.4 <= true[i, 1] <= 0.6]
        expected = -true[min(rows, key=lambda i: measured[i, 0]), 0] if rows else np.nan
        np.testing.assert_equal(found[k - 1], expected)


def test_the_first_number_of_validations_that_is_good_enough():
    yardstick, numbers = load("yardstick"), np.array([5, 10, 15])
    assert yardstick.first(numbers, np.array([90.0, 95.0, 99.0]), 95) == 10
    assert yardstick.first(numbers, np.array([90.0, 95.0, 98.9]), 99) == np.inf
    assert yardstick.first(numbers, np.array([9.0, 5.0, 1.0]), 5, "epsilon") == 10


# -- reference points -----------------------------------------------------------------------------------------------------


@needs_tables
@pytest.mark.parametrize("name", ["nb201:imagenet16:eyeriss", "macro"])
def test_a_twentieth_of_a_table_is_beyond_the_tight_reference_and_searches_are_not_told_it(name):
    problem = load("problems").create(name)
    values = problem.true(problem.archs)
    for column, tight, loose in zip(values.T, problem.references["tight"], problem.references["loose"], strict=True):
        order = np.sort(column)
        assert order[int(0.95 * (len(order) - 1))] <= tight <= order[int(0.95 * (len(order) - 1)) + 1]
        assert tight < loose == column.max()
    inside = (problem.front < problem.references["tight"]).all(1)
    assert problem.best["tight"] == pytest.approx(hypervolume_exact(problem.front[inside], problem.references["tight"]))
    assert problem.told[0] == 0 and problem.told[1] == values[:, 1].max()


@needs_tables
def test_no_single_gene_change_of_a_known_front_is_better():
    problem, known = load("problems").create("macro"), load("known")
    best = known.improved(problem, problem.archs[[0, 3000]])
    values = problem.true(best)
    assert non_dominated_exact(values).all() and len(np.unique(values, axis=0)) == len(values)
    for arch in best:
        apart = (problem.archs != arch).sum(1) == 1
        assert ((values[:, None] <= problem.true(problem.archs[apart])).all(2)).any(0).all()


# -- files of runs --------------------------------------------------------------------------------------------------------


def test_architectures_are_numbered_in_order_even_where_numbers_do_not_fit_64_bits():
    benchmarks, counts = load("benchmarks"), (2, 3, 4)
    archs = benchmarks.architectures(range(24), counts)
    assert len(np.unique(archs, axis=0)) == 24
    np.testing.assert_array_equal(archs, archs[np.lexsort(archs.T[::-1])])
    assert benchmarks.numbers(archs, counts) == list(range(24))
    wide = (3,) * 50
    archs = np.random.default_rng(0).integers(0, 3, (7, 50))
    assert max(benchmarks.numbers(archs, wide)) > 2**64
    np.testing.assert_array_equal(benchmarks.architectures(benchmarks.numbers(archs, wide), wide), archs)
    assert benchmarks.architectures([], counts).shape == (0, 3)


@needs_tables
def test_a_stored_run_is_scored_as_the_search_itself(tmp_path):
    anytime, runs, problem = load("anytime"), load("runs"), load("problems").create("macro")
    path = tmp_path / "runs.csv"
    anytime.run_all(path, ["random"], ["macro"], [0, 1], 20, 1)
    once = path.read_text()
    anytime.run_all(path, ["random"], ["macro"], [0, 1], 20, 1)
    assert path.read_text() == once and once.count("\n") == 3
    anytime.run_all(path, ["random"], ["macro"], [1], 30, 1)
    assert path.read_text().startswith(once)
    curves = runs.joined([path])["random", "macro"]
    assert [len(curves[seed]["loose"][0]) for seed in (0, 1)] == [20, 30]
    values = problem.true(load("rivals").random(problem, 30, 1)[0])
    for name, reference in problem.references.items():
        numbers, found = curves[1][name]
        for k in (1, 7, 30):
            expected = hypervolume_exact(values[:k][(values[:k] < reference).all(1)], reference)
            assert numbers[k - 1] == k
            assert found[k - 1] == pytest.approx(100 * expected / problem.best[name])
    spread = np.ptp(problem.front, axis=0)
    assert curves[1]["epsilon"][1][-1] == pytest.approx(100 * by_search(values, problem.front, spread))
    for by in ("loose", "tight", "epsilon"):
        anytime.show([path], "random@20", by)


@needs_tables
def test_a_run_that_found_nothing_new_before_its_budget_was_spent_keeps_its_last_score(tmp_path):
    anytime, runs, problem = load("anytime"), load("runs"), load("problems").create("macro")
    whole, path = anytime.run("random", "macro", 0, 20), tmp_path / "runs.csv"
    for seed, number in enumerate((20, 12)):
        runs.append(path, "random", "macro", seed, whole._replace(rows=whole.rows[:number]))
    scored = runs.joined([path])["random", "macro"]
    for by in problem.best:
        (numbers, values), (shorter_numbers, shorter) = scored[0][by], scored[1][by]
        np.testing.assert_array_equal(shorter_numbers, numbers)
        np.testing.assert_array_equal(shorter, np.append(values[:12], np.full(8, values[11])))


@needs_tables
def test_older_files_are_read_as_what_they_are(tmp_path):
    runs, problem, path = load("runs"), load("problems").create("macro"), tmp_path / "old.csv"
    best = problem.best["loose"]
    path.write_text(
        "method,problem,seed,evaluations,hypervolume,in_band,seconds\n"
        f"linas,macro,3,10,{best / 2},nan,1.0\nlinas,macro,3,5,{best / 4},nan,1.0\nnasjax:ehvi,macro,0,5,{best},nan,1.0\n"
    )
    curves = runs.joined([path])
    assert set(curves) == {("linas", "macro"), ("nasjax:ehvi,aim=loose", "macro")}
    numbers, volumes = curves["linas", "macro"][3]["loose"]
    np.testing.assert_array_equal(numbers, [5, 10])
    np.testing.assert_allclose(volumes, [25, 50])
    assert "tight" not in curves["linas", "macro"][3]
    with pytest.raises(ValueError, match="new file"):
        runs.read(path)


@needs_tables
def test_a_run_without_an_aim_serves_all_reference_points_of_a_surrogate():
    runs, problems = load("runs"), load("problems")
    assert runs.served("nasjax:ehvi", "surrogate_blend") == problems.twins("surrogate_blend")
    assert runs.served("nasjax:ehvi,aim=loose", "surrogate_blend") == ["surrogate_blend"]
    assert problems.base("surrogate_blend_inner") == "surrogate_blend" and problems.base("macro") == "macro"


@needs_tables
def test_a_tactic_aims_at_what_it_is_told(monkeypatch):
    anytime, problem, told = load("anytime"), load("problems").create("macro"), []
    made = anytime.Problem
    monkeypatch.setattr(anytime, "Problem", lambda *args, **more: told.append(args[5]) or made(*args, **more))
    for words, expected in (
        ("random", problem.told),
        ("random,aim=tight", problem.references["tight"]),
        ("random,aim=loose", problem.reference),
    ):
        anytime.nasjax_tactic(words, problem, 5, 0)
        np.testing.assert_array_equal(told[-1], expected)


def test_stored_runs_name_their_package_and_measure_what_they_were_given():
    runs = load("runs")
    for path in sorted((ROOT / "experiments" / "tactics" / "results").glob("*.csv")):
        with path.open(newline="") as file:
            if "rows" in next(csv.reader(file)):
                for (method, _), seeds in runs.read(path).items():
                    for run in seeds.values():
                        assert run.version.split()[0] in runs.PACKAGES.values(), (path, method)
                        assert 0 < len(run.rows) <= run.evaluations
