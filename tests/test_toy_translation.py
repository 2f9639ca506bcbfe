"""A task and a super-network that have nothing to do with images: evaluated, searched, trained, timed, extracted."""

import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from toy_translation import LENGTH, OnHost, translation, translator

import nasjax
from nasjax.cli import main
from nasjax.evaluation import EVALUATORS, STRATEGIES, measure
from nasjax.evaluation.blocks import blocks_by_step
from nasjax.hardware.costs import cost_tables
from nasjax.hardware.latency_table import branches
from nasjax.searches.problem import profiling_for
from nasjax.supernets.extract import extract
from nasjax.supernets.runner import Subnet
from nasjax.tasks import Split
from nasjax.training import SandwichConfig
from nasjax.training.loop import train

NAMES = ("source", "target")

SETTINGS = {"batch": 8, "chunk": 4, "calibration_examples": 0}


@pytest.fixture(scope="module")
def net():
    return translator()


@pytest.fixture(scope="module")
def task():
    return translation()


@pytest.fixture(scope="module")
def archs(net):
    archs = np.asarray(net.space.sample(jax.random.key(3), 4), np.int32)
    assert len(np.unique(archs[:, net.space.names.index("encoder_width")])) == 2
    return archs


@pytest.fixture(scope="module")
def by_hand(net, task, archs):
    """Metrics of extracted networks by a plain loop over sentences, each decoded alone, without caches or batches."""
    found = []
    for arch in archs:
        small = extract(net, tuple(map(int, arch)))
        graph, weights = nnx.split(small)
        run = jax.jit(
            lambda weights, source, target, graph=graph: nnx.merge(graph, weights)({"source": source, "target": target})
        )
        split, right, whole, losses, words = task.validation, 0, 0, 0.0, 0
        for i in range(len(split)):
            length = split.bucket[i]
            source, wanted = split.inputs["source"][i : i + 1, :length], split.targets[i, :length]
            target = np.zeros((1, length), np.int32)
            decoded = []
            for place in range(length):  # The whole beginning again for each word.
                decoded.append(int(np.asarray(run(weights, source, target))[0, place].argmax()))
                target[0, place + 1 : place + 2] = decoded[-1]
            right += int((np.array(decoded) == wanted).sum())
            whole += decoded == wanted.tolist()
            logits = np.asarray(run(weights, source, split.inputs["target"][i : i + 1, :length]), np.float64)[0]
            logs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
            losses -= logs[np.arange(length), wanted].sum()
            words += length
        found.append((100 * right / words, 100 * whole / len(split), np.exp(losses / words)))
    return np.array(found)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_decodes_as_the_extracted_networks_do_word_by_word(net, task, archs, by_hand, strategy):
    evaluator = EVALUATORS[strategy](**SETTINGS).bind(net, task)
    found = measure(evaluator, archs)
    np.testing.assert_allclose(np.stack([found[name] for name in evaluator.metrics], 1), by_hand, rtol=1e-5)
    assert evaluator.context["evaluator"] == {}  # No batch norms: nothing is re-calibrated.
    if strategy != "prefix":
        assert evaluator._strategy.calibrate._cache_size() == 0
        assert evaluator._strategy.score._cache_size() == 2  # One program a bucket.


@pytest.mark.slow
def test_statistics_on_the_host_give_the_same(net, task, archs, by_hand):
    held = OnHost(task.train, task.validation, task.test)
    for strategy in ("prefix",):
        evaluator = EVALUATORS[strategy](**SETTINGS).bind(net, held)
        found = measure(evaluator, archs[:2])
        np.testing.assert_allclose(np.stack([found[name] for name in evaluator.metrics], 1), by_hand[:2], rtol=1e-5)


def test_standard_errors_are_those_of_ratios_of_sums(net, task, archs):
    """The delta method against the jackknife, which leaves every sentence out in turn."""
    evaluator = EVALUATORS["masked"](**SETTINGS).bind(net, task)
    found = measure(evaluator, archs[:1])
    arch, rows = tuple(map(int, archs[0])), []
    for length in (3, LENGTH):
        part = task.validation.take(task.validation.bucket == length)
        inputs, targets = jax.tree.map(lambda leaf, n=length: jnp.asarray(leaf[:, :n]), (part.inputs, part.targets))
        outputs = jax.jit(lambda inputs: task.outputs(Subnet(net, arch, net.stored()), inputs))(inputs)
        rows.append(np.asarray(task.statistics(outputs, targets), np.float64))
    statistics = np.concatenate(rows)
    number = len(statistics)
    without = [task.metrics(statistics.sum(0) - row) for row in statistics]
    for name in evaluator.metrics:
        values = np.array([float(metrics[name]) for metrics in without])
        jackknife = np.sqrt((number - 1) / number * ((values - values.mean()) ** 2).sum())
        assert found[f"{name}_se"][0] == pytest.approx(jackknife, rel=0.15, abs=1e-6)


def test_repeated_stages_count_once_a_word(net):
    once, five = (cost_tables(net.shapes(steps)) for steps in (1, LENGTH))
    archs = np.stack([net.space.smallest(), net.space.largest()])
    encoder = once["macs"].tables[0][archs[:, list(once["macs"].columns[0])].T[0]]
    np.testing.assert_array_equal(five["macs"].exact(archs) - encoder, LENGTH * (once["macs"].exact(archs) - encoder))
    for name in ("params", "model_size", "memory"):
        np.testing.assert_array_equal(five[name].exact(archs), once[name].exact(archs))
    parts = branches(net.shapes(LENGTH), batch=1)
    sums = parts.sums(dict.fromkeys(parts.distinct, 1.0))
    assert np.asarray(sums(archs)).tolist() == [[5, 5], [6, 6]]
    runs = {type(branch.network.stages[0]): branch.network.steps for branch in parts.distinct.values()}
    assert [runs[type(stage)] for stage in net.stages] == [LENGTH if stage.repeated else 1 for stage in net.stages]


@pytest.mark.slow
def test_training_learns_to_translate(net):
    task = translation(train=200)
    trainer = SandwichConfig(epochs=60, batch=50, learning_rate=2e-2, random_subnets=1)
    trained = train(trainer, net, task, jax.random.key(0), lambda *facts: None)
    ends = np.stack([net.space.smallest(), net.space.largest()])
    before, after = (measure(EVALUATORS["masked"](**SETTINGS).bind(n, task), ends) for n in (net, trained))
    assert (after["perplexity"] < 0.7 * before["perplexity"]).all()
    assert (after["words"] > before["words"] + 15).all()


def test_a_search_from_python_extracts_and_exports(net, task, tmp_path):
    net.origin = {"name": "own", "target": "toy_translation:ToyTranslator", "arguments": {}, "checkpoint": None}
    front = nasjax.search(net, task, objectives=["words", "macs"], evaluator={"name": "switch", **SETTINGS}, evaluations=8,
                          tactic="random")  # fmt: skip
    assert len(front) and set(front.metrics) >= {"words", "words_se", "perplexity", "macs", "test_words"}
    folder = front[0].extract().save(tmp_path / "net", [".stablehlo"])
    small = nasjax.load(folder)
    inputs = jax.tree.map(lambda leaf: leaf[:3], task.validation.inputs)
    again = jax.export.deserialize(bytearray((folder / "network.stablehlo").read_bytes())).call(inputs)
    np.testing.assert_allclose(again, jax.jit(lambda inputs: small(inputs))(inputs), atol=1e-5)


@pytest.mark.slow
def test_the_same_by_command_with_latencies(tmp_path, monkeypatch):
    shutil.copy(Path(__file__).with_name("toy_translation.py"), tmp_path)
    monkeypatch.chdir(tmp_path)
    given = ["supernet=toy_translation:ToyTranslator", "task=toy_translation:translation"]
    trainer = ["trainer.epochs=3", "trainer.batch=40", "trainer.random_subnets=1"]
    assert main(["train", *given, *trainer, "run=trained"]) == 0
    assert json.loads(Path("trained/record.json").read_text())["metric"] == "words"
    hardware = ["hardware=cpu", "hardware.networks=6", "hardware.seconds=0.05", "hardware.threads=1"]
    settings = [
        "supernet.checkpoint=trained/supernet.safetensors",
        "evaluations=8",
        "tactic=random",
        "task.arguments.validation=30",
    ]
    assert main(["search", *given, *settings, *hardware, "objectives=[words,latency]", "run=found"]) == 0
    assert main(["extract", "run=found", "export=stablehlo", "out=net"]) == 0
    assert Path("net/network.stablehlo").is_file()


def test_a_problem_times_whole_translations(net, task, monkeypatch):
    """What hardware is given runs the decoder's stages for every word."""
    shapes = []
    monkeypatch.setattr("nasjax.searches.problem.profiling", lambda net, hardware: shapes.append(net) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        next(profiling_for(net, task, "cpu"))
    assert shapes[0].steps == LENGTH


def test_buckets_compute_less_than_padding_and_each_has_one_shape(task):
    """Also in steps and for several devices."""
    for step, devices in ((None, 1), (16, 1), (16, 2)):
        steps = blocks_by_step(task.validation, 4, 4 * devices, step, devices=devices)
        blocks = [block for one in steps for block in one]
        shapes = {block.inputs["source"].shape for block in blocks}
        assert len(shapes) == 2 and {shape[2] for shape in shapes} == {3, LENGTH}
        assert all(shape[0] % devices == 0 for shape in shapes)
        assert sum(block.weights.sum() for block in blocks) == len(task.validation)
    whole = Split(task.validation.inputs, task.validation.targets)
    positions = [
        sum(block.inputs["source"].size for one in blocks_by_step(split, 4, 10) for block in one)
        for split in (task.validation, whole)
    ]
    assert positions[0] < positions[1]
