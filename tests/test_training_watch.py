"""Curves of a training are the scores of its weights, compiled once; its ranking is that of networks trained alone."""

import json
import re
from dataclasses import replace
from itertools import combinations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tensorboardX.proto import event_pb2
from test_training import SMALL, TRAINER
from test_training_resume import CONFIG
from tiny import close, easy_task

from nasjax.errors import ConfigError
from nasjax.evaluation import MaskedConfig, population
from nasjax.report.training import write_training_page
from nasjax.runs.folder import write_table
from nasjax.supernets import load_weights
from nasjax.training import batches, run
from nasjax.training.loop import Training
from nasjax.training.ranking import AloneConfig, _read_ranking, drawn_archs, rank_correlation, train_alone
from nasjax.training.watch import Watch, read_curves, scoring, watched_archs, watched_task


@pytest.fixture(scope="module", autouse=True)
def few_steps():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batches, "MOST_STEPS", 1)
        yield


@pytest.fixture(scope="module")
def task():
    return easy_task((120, 60, 6), noise=0.4)


@pytest.fixture(scope="module")
def net():
    return nnx.jit(lambda: SMALL.create(0))()


@pytest.fixture(scope="module")
def training(net, task):
    return Training(replace(TRAINER, epochs=3), net, task, jax.random.key(5))


@pytest.fixture(scope="module")
def states(training):
    return list(training.run(training.begin()))


@pytest.mark.slow
def test_watched_scores_are_those_of_an_evaluator_and_compile_once(training, states, task):
    score, metric = scoring(training), watched_task(training).objectives[0]
    archs = watched_archs(training)
    assert list(archs) == ["largest", "smallest", "random"] and metric.name == "accuracy_top1"
    config = MaskedConfig(batch=24, calibration_examples=120, chunk=3)
    with jax.log_compiles(False):
        for state in states[4::5]:
            wanted = config.bind(training.network(state), task)(np.concatenate(list(archs.values())))[metric.name]
            np.testing.assert_allclose(list(score(state).values()), wanted, atol=1e-4)
    compiled = []
    with pytest.MonkeyPatch.context() as patch:
        original = jax._src.interpreters.mlir.lower_jaxpr_to_module
        patch.setattr(jax._src.interpreters.mlir, "lower_jaxpr_to_module",
                      lambda name, *args, **kw: compiled.append(name) or original(name, *args, **kw))  # fmt: skip
        score(states[0])
    assert not compiled


def test_networks_that_do_not_fit_at_once_are_scored_one_by_one(training, states, monkeypatch):
    wanted = scoring(training)(states[4])
    monkeypatch.setattr("nasjax.evaluation.masked.MaskedConfig.runs_at_once", lambda *_: True)
    planned = population.plan
    monkeypatch.setattr(population, "plan", lambda *sizes: planned(*sizes)._replace(chunk=1))
    assert scoring(training)(states[4]) == pytest.approx(wanted, abs=1e-3)


def events(folder):
    """(step, name, value) of every scalar, read from the files' records."""
    found = []
    for file in sorted((folder / "events").iterdir()):
        content, place = file.read_bytes(), 0
        while place < len(content):
            size = int.from_bytes(content[place : place + 8], "little")
            event = event_pb2.Event.FromString(content[place + 12 : place + 12 + size])
            found += [(event.step, value.tag, value.simple_value) for value in event.summary.value]
            place += 16 + size
    return found


def test_curves_of_a_continued_training_are_those_of_a_whole_one(training, states, tmp_path):
    """A row that was written after the last checkpoint is written once."""
    for folder in ("whole", "stopped"):
        (tmp_path / folder).mkdir()
    # The checkpoint that the second goes on from is older than its last row.
    parts = (("whole", training.begin(), states[4::5]), ("stopped", training.begin(), states[4:10:5]),
             ("stopped", states[7], states[9::5]))  # fmt: skip
    for folder, begun, ends in parts:
        with Watch(tmp_path / folder, training, begun) as watch:
            for state in ends:
                watch(state)
    rows = {name: read_curves(tmp_path / name / "curves.csv") for name in ("whole", "stopped")}
    assert [row["epoch"] for row in rows["stopped"]] == [1, 2, 3]
    for first, second in zip(*rows.values(), strict=True):
        assert {k: v for k, v in first.items() if k in ("loss", "step", "learning_rate")} == {
            k: v for k, v in second.items() if k in ("loss", "step", "learning_rate")}  # fmt: skip
    assert rows["whole"][-1]["accuracy_top1_largest"] == rows["stopped"][-1]["accuracy_top1_largest"]
    assert rows["whole"][0]["learning_rate"] == pytest.approx(training.rate(states[4]), rel=1e-5)
    scalars = {(step, name): value for step, name, value in events(tmp_path / "whole")}
    for row in rows["whole"]:
        assert scalars[int(row["step"]), "loss"] == pytest.approx(row["loss"], rel=1e-4)


def test_kendall_s_tau_is_that_of_all_pairs():
    rng = np.random.default_rng(1)
    first, second = rng.normal(size=(2, 12))
    signs = [np.sign((first[i] - first[j]) * (second[i] - second[j])) for i, j in combinations(range(12), 2)]
    tau, error = rank_correlation(first, second)
    assert tau == pytest.approx(np.mean(signs)) and 0.05 < error < 0.4
    np.testing.assert_allclose(rank_correlation(first, 3 * first + 1), (1, 0), atol=1e-9)


def test_networks_to_rank_are_distinct(net):
    archs = drawn_archs(net, 5, jax.random.key(0))
    assert len({arch.tobytes() for arch in archs}) == 5
    assert len(drawn_archs(net, 10_000, jax.random.key(0))) == net.space.size


@pytest.mark.slow
def test_a_network_alone_has_the_gradient_of_the_extracted_one(net, task):
    """Weights that its architecture leaves out get none, so that they change by nothing but weight decay."""
    archs = drawn_archs(net, 3, jax.random.key(0))
    config = replace(TRAINER, weight_decay=0.0, epochs=9)
    alone = train_alone(config, net, task, archs, jax.random.key(1), 1)
    trained = [alone(i) for i in range(2)]
    training = Training(AloneConfig(batch=24), net, task, jax.random.key(1))
    for i in range(2):
        static = tuple(map(int, archs[i]))
        graph, weights, rest = nnx.split(net, nnx.Param, ...)
        images, labels = jnp.asarray(task.train.inputs[:24]), jnp.asarray(task.train.targets[:24])

        def loss(weights, static=static, graph=graph, rest=rest, images=images, labels=labels):
            logits = nnx.merge(graph, weights, rest).forward(images, static, None)[0]
            return task.loss(logits, labels).mean()

        wanted = jax.jit(jax.grad(loss))(weights)
        found = training._gradient_at((), 0, False, jnp.asarray(archs[i], jnp.int32))(
            weights, None, images, labels, jax.random.key(0)
        )[1]
        close(jax.tree.leaves(found), jax.tree.leaves(wanted), 1e-4)
        unused = [not np.asarray(leaf).any() for leaf in jax.tree.leaves(wanted)]
        moved = [
            (np.asarray(new) != np.asarray(old)).any()
            for new, old in zip(jax.tree.leaves(nnx.state(trained[i], nnx.Param)), jax.tree.leaves(weights), strict=True)
        ]
        assert not any(a and b for a, b in zip(unused, moved, strict=True)) and any(moved)


def test_a_training_leaves_a_page_with_its_curves_and_ranking(net, task, tmp_path, monkeypatch):
    """A second command goes on with the ranking: networks that were trained alone are not trained again."""
    monkeypatch.setattr(run, "_network", lambda config: net)
    monkeypatch.setattr(run, "_scores", lambda *given: {"validation": 50.0})
    monkeypatch.setattr(run.tasks, "create", lambda **settings: task)
    config = CONFIG | {"trainer": CONFIG["trainer"] | {"watch": True, "alone": 3, "alone_epochs": 1, "epochs": 2}}
    done = []

    def stop(number, planned, value):
        done.append(number)
        if number == 2:
            raise KeyboardInterrupt

    folder = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        run.train_run(folder, config, "nasjax train <x>", lambda *given: None, stop)
    record = run.train_run(folder, config, "nasjax train <x>", lambda *given: None, lambda *given: done.append(given[0]))
    assert done == [1, 2, 3] and record["ranking"]["networks"] == 3
    table = [line.split(",") for line in (folder / "ranking.csv").read_text().splitlines()]
    assert table[0][-2:] == ["accuracy_top1", "accuracy_top1_alone"] and len(table) == 4
    page = write_training_page(folder).read_text()
    assert "nasjax train &lt;x&gt;" in page and "Kendall" in page and page.count("<svg") == 4
    assert str(record["ranking"]["kendall_tau"]) in page and json.loads((folder / "record.json").read_text()) == record
    assert not re.search(r"https?://|src=", page)
    assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_the_best_weights_are_kept_where_the_last_are_worse(training, states, task, tmp_path, monkeypatch):
    """By the mean of the scores; the weights of an epoch, with batch-norm statistics."""
    scores = iter(
        [{"largest": 90.0, "smallest": 50.0}, {"largest": 80.0, "smallest": 70.0}, {"largest": 95.0, "smallest": 50.0}]
    )
    monkeypatch.setattr("nasjax.training.watch.scoring", lambda training: lambda state: next(scores))
    monkeypatch.setattr(run, "store", lambda *given: None)
    last = run._run(tmp_path, training, training.begin(), lambda *given: None)
    trained = training.network(last)
    run._end_best(tmp_path, training, trained)
    kept, wanted = load_weights(lambda: nnx.clone(trained), tmp_path / "best.safetensors"), training.network(states[9])
    close(nnx.to_pure_dict(nnx.state(kept)), nnx.to_pure_dict(nnx.state(wanted)), 1e-6)


def test_an_epoch_whose_scoring_was_interrupted_is_scored_when_training_goes_on(training, states, tmp_path, monkeypatch):
    """Here the last: nothing is left to be trained."""
    asked = []

    def score(state):
        asked.append(state.steps)
        if len(asked) == 3:
            raise KeyboardInterrupt
        return {"largest": 50.0 + len(asked)}

    stored = []
    monkeypatch.setattr("nasjax.training.watch.scoring", lambda training: score)
    monkeypatch.setattr("nasjax.training.watch.MOST_TIME", 1e9)
    monkeypatch.setattr(run, "store", lambda path, state: stored.append(state))
    with pytest.raises(KeyboardInterrupt):
        run._run(tmp_path, training, training.begin(), lambda *given: None)
    assert len(read_curves(tmp_path / "curves.csv")) == 2 and (tmp_path / "best.safetensors").exists()
    seen = []
    run._run(tmp_path, training, stored[-1], lambda *given: seen.append(given[0]))
    assert seen == [3] and asked == [5, 10, 15, 15]
    assert [row["step"] for row in read_curves(tmp_path / "curves.csv")] == [5, 10, 15]
    assert not (tmp_path / "best.safetensors").exists()  # The last weights are the best.


def test_the_best_weights_outlast_a_training_that_goes_on_from_before_them(training, states, task, tmp_path, monkeypatch):
    """Killed after its second epoch, it goes on from a checkpoint of the first: the second may not be scored again."""
    monkeypatch.setattr(run, "store", lambda *given: None)
    metric, file = task.objectives[0], tmp_path / "best.safetensors"
    for state, score in ((states[4], 60.0), (states[9], 75.0)):
        run._keep_best(tmp_path, training, state, metric, score)
    best = file.read_bytes()
    for state, score in ((states[9], 74.9999999), (states[14], 74.9999999)):
        run._keep_best(tmp_path, training, state, metric, score)
        assert file.read_bytes() == best
    run._end_best(tmp_path, training, training.network(states[14]))
    run._keep_best(tmp_path, training, states[14], metric, 74.9)  # Where no checkpoint of the end could be stored.
    assert file.exists()
    run._keep_best(tmp_path, training, states[14], metric, 75.0)
    assert not file.exists()


@pytest.mark.parametrize("damage", ["", "{first}\n", "{first},9\n{rest}", "{first}\nx,y,z\n", "{first}\n1\n"])
def test_a_damaged_ranking_is_one_line(net, damage, tmp_path):
    archs = drawn_archs(net, 2, jax.random.key(0))
    heads = [*(gene.name for gene in net.space.genes), "accuracy_top1", "accuracy_top1_alone"]
    write_table(tmp_path / "ranking.csv", heads, [[*map(int, arch), 50.0, 40.25 + i] for i, arch in enumerate(archs)])
    first, rest = (tmp_path / "ranking.csv").read_text().split("\n", 1)
    assert _read_ranking(tmp_path / "ranking.csv", heads, archs) == [40.25, 41.25]
    (tmp_path / "ranking.csv").write_text(damage.format(first=first, rest=rest))
    if damage == "{first}\n":
        assert _read_ranking(tmp_path / "ranking.csv", heads, archs) == []
    else:
        with pytest.raises(ConfigError, match=r"ranking\.csv is damaged .* remove it, and the same command makes it anew"):
            _read_ranking(tmp_path / "ranking.csv", heads, archs)
