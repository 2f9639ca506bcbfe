"""The masked evaluator against networks taken out one by one, calibrated and scored by hand."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tiny import architectures, close, easy_task, tiny_network

from nasjax.errors import ConfigError
from nasjax.evaluation import MaskedConfig
from nasjax.evaluation.calibration import calibrate
from nasjax.evaluation.memory import compiler_bytes
from nasjax.supernets.extract import extract
from nasjax.tasks import Split

CONFIG = MaskedConfig(batch=16, calibration_examples=50, chunk=4)


def network(seed=1, **changes):
    return tiny_network(seed, **{"first_width": 0, "kernels": (3, 5)} | changes)


@pytest.fixture(scope="module")
def tiny_net():
    return network()


@pytest.fixture(scope="module")
def archs(tiny_net):
    return np.array(architectures(tiny_net.space, 2), np.int32)


@pytest.fixture(scope="module")
def evaluator(tiny_net, tiny_task):
    return CONFIG.bind(tiny_net, tiny_task)


@pytest.fixture(scope="module")
def found(evaluator, archs):
    return evaluator(archs)


def calibrated_by_hand(net, arch, batches):
    """Averages over batches of each norm's batch mean and biased batch variance."""
    graph, weights = nnx.split(net)
    run = jax.jit(lambda weights, images: nnx.merge(graph, weights).forward(images, arch, None)[1])
    used = [jax.device_get(run(weights, jnp.asarray(batch))) for batch in batches]
    return jax.tree.map(lambda *moments: np.mean(np.array(moments, np.float64), axis=0).astype(np.float32), *used)


def scored_by_hand(logits, labels):
    """Metrics and standard errors of their means, from logits, in float64."""
    logits = np.asarray(logits, np.float64)
    shifted = logits - logits.max(1, keepdims=True)
    losses = np.log(np.exp(shifted).sum(1)) - shifted[np.arange(len(labels)), labels]
    correct = 100.0 * (logits.argmax(1) == labels)
    scores = {"accuracy_top1": correct, "loss": losses}
    errors = {f"{name}_se": values.std(ddof=1) / np.sqrt(len(values)) for name, values in scores.items()}
    return {name: values.mean() for name, values in scores.items()} | errors


@pytest.mark.parametrize("index", [1, 2, 3])
def test_a_population_is_its_networks_one_by_one(tiny_net, tiny_task, found, archs, index):
    arch = tuple(map(int, archs[index]))
    statistics = calibrated_by_hand(tiny_net, arch, CONFIG.calibration(tiny_net, tiny_task))
    small = extract(tiny_net, arch, jax.tree.map(jnp.asarray, statistics))
    graph, weights = nnx.split(small)
    assert len(tiny_task.validation) % CONFIG.batch != 0
    logits = jax.jit(lambda weights, images: nnx.merge(graph, weights)(images))(weights, tiny_task.validation.inputs)
    for name, value in scored_by_hand(logits, tiny_task.validation.targets).items():
        assert found[name][index] == pytest.approx(value, rel=1e-5), name


def test_the_networks_differ_and_calibration_matters(tiny_net, tiny_task, found, archs):
    assert len(set(found["loss"].tolist())) == len(archs)
    graph, weights = nnx.split(tiny_net)
    logits = jax.jit(lambda weights: nnx.merge(graph, weights)(tiny_task.validation.inputs, jnp.asarray(archs[1])))(weights)
    stored = scored_by_hand(logits, tiny_task.validation.targets)
    assert abs(stored["loss"] - found["loss"][1]) > 0.01


def test_calibration_is_an_average_over_batches(tiny_net, tiny_task, archs):
    """Of the batch moments, not the moments of all images together."""
    batches = CONFIG.calibration(tiny_net, tiny_task)
    arch = tuple(map(int, archs[2]))
    graph, weights = nnx.split(tiny_net)
    traced = jax.jit(lambda weights, arch: calibrate(nnx.merge(graph, weights), arch, jnp.asarray(batches)))
    statistics = traced(weights, jnp.asarray(archs[2]))
    close(statistics, calibrated_by_hand(tiny_net, arch, batches))
    pooled = calibrated_by_hand(tiny_net, arch, batches.reshape(1, -1, *batches.shape[2:]))
    assert np.abs(statistics[0]["conv"].variance - pooled[0]["conv"].variance).max() > 1e-4
    assert np.abs(statistics[-1]["expand"].variance - pooled[-1]["expand"].variance).max() > 1e-2


def test_calibration_examples(tiny_net, tiny_task):
    batches = CONFIG.calibration(tiny_net, tiny_task)
    assert batches.shape == (3, 16, 7, 7, 3)  # 50 asked for: whole batches only
    training = {image.tobytes() for image in tiny_task.train.inputs}
    drawn = [image.tobytes() for image in batches.reshape(-1, 7, 7, 3)]
    assert len(set(drawn)) == 48 and set(drawn) <= training
    assert not np.array_equal(replace(CONFIG, seed=1).calibration(tiny_net, tiny_task), batches)
    assert replace(CONFIG, calibration_examples=3).calibration(tiny_net, tiny_task).shape[:2] == (1, 16)
    assert replace(CONFIG, calibration_examples=1000, batch=200).calibration(tiny_net, tiny_task).shape[:2] == (1, 96)


def test_results_do_not_depend_on_company(evaluator, found, archs):
    """On how many are asked for, in which order, or whether one is asked for twice."""
    for rows in ([0], [2], [1, 3], [0, 1, 2], [3, 2, 1, 0], [2, 2, 0, 2]):
        for name, values in evaluator(archs[rows]).items():
            np.testing.assert_array_equal(values, found[name][rows], err_msg=f"{name} of {rows}")


def test_what_comes_back(evaluator, found, archs):
    assert sorted(found) == ["accuracy_top1", "accuracy_top1_se", "loss", "loss_se"]
    for values in found.values():
        assert values.shape == (len(archs),) and values.dtype == np.float64
    hits = found["accuracy_top1"] * 41 / 100
    np.testing.assert_allclose(hits, hits.round(), atol=1e-5)
    share = found["accuracy_top1"] / 100
    np.testing.assert_allclose(found["accuracy_top1_se"], 100 * np.sqrt(share * (1 - share) / 40), rtol=1e-5)
    assert evaluator.metrics == ("accuracy_top1", "loss") and evaluator.chunk == 4


def test_the_last_batch_counts_only_its_images(tiny_net, tiny_task, evaluator):
    """Cut the images in two: 7 and 34, neither whole batches. The sums of both are that of all."""
    number = 7
    validation = tiny_task.validation
    arch = tiny_net.space.smallest()[None]
    parts = [(0, number), (number, 41)]
    sums = np.zeros(2)
    for start, stop in parts:
        split = Split(validation.inputs[start:stop], validation.targets[start:stop])
        result = CONFIG.bind(tiny_net, replace(tiny_task, validation=split))(arch)
        sums += (stop - start) * np.array([result["accuracy_top1"][0], result["loss"][0]])
    whole = evaluator(arch)
    np.testing.assert_allclose(sums / 41, [whole["accuracy_top1"][0], whole["loss"][0]], rtol=1e-6)


def test_less_memory_makes_smaller_chunks(tiny_net, tiny_task, found, archs):
    compiling = compiler_bytes(tiny_net) / 1e9

    def chunk(memory):
        return replace(CONFIG, chunk=16, memory_gb=memory, at_once=True).bind(tiny_net, tiny_task).chunk

    chunks = [chunk(compiling + memory) for memory in (1e-3, 2e-3, 4e-3, 8e-3, 4.0)]
    assert chunks == sorted(chunks) and chunks[0] == 1 and chunks[-1] == 16 and len(set(chunks)) > 3
    with pytest.raises(ValueError, match=r"evaluator\.memory_gb=1e-09 is too small to re-calibrate one network"):
        chunk(1e-9)
    alone = replace(CONFIG, memory_gb=compiling + 1e-3, at_once=True).bind(tiny_net, tiny_task)
    assert alone.chunk == 1
    for i in (1, 2):
        for name, values in alone(archs[i : i + 1]).items():
            assert values == pytest.approx(found[name][i : i + 1], abs=1e-4), name


def test_the_test_split_is_another(tiny_net, tiny_task, found, archs):
    result = CONFIG.bind(tiny_net, tiny_task, "test")(archs)
    assert result["loss"] != pytest.approx(found["loss"], abs=1e-3)
    swapped = replace(tiny_task, validation=tiny_task.test)
    assert CONFIG.bind(tiny_net, swapped)(archs)["loss"] == pytest.approx(result["loss"])


def test_contexts_name_all_that_values_depend_on(tiny_net, tiny_task, evaluator):
    assert evaluator.context == CONFIG.bind(network(), easy_task()).context
    others = [
        CONFIG.bind(network(2), tiny_task),
        CONFIG.bind(network(kernels=(3, 7)), tiny_task),
        CONFIG.bind(tiny_net, easy_task(seed=1)),
        CONFIG.bind(tiny_net, tiny_task, "test"),
        CONFIG.bind(tiny_net, replace(tiny_task, train=tiny_task.validation)),
        replace(CONFIG, seed=1).bind(tiny_net, tiny_task),
        replace(CONFIG, calibration_examples=16).bind(tiny_net, tiny_task),
        replace(CONFIG, batch=8).bind(tiny_net, tiny_task),
    ]
    contexts = [repr(other.context) for other in [evaluator, *others]]
    assert len(set(contexts)) == len(contexts)


def test_one_changed_weight_statistic_or_label_is_another_context(tiny_net, tiny_task, evaluator):
    changed = nnx.clone(tiny_net)
    changed.stages[1].project.norm.mean[...] = changed.stages[1].project.norm.mean[...].at[0].add(1e-3)
    assert CONFIG.bind(changed, tiny_task).context["weights"] != evaluator.context["weights"]
    labels = tiny_task.validation.targets.copy()
    labels[0] = (labels[0] + 1) % 3
    other = replace(tiny_task, validation=Split(tiny_task.validation.inputs, labels))
    assert other.digest() != tiny_task.digest()


def test_batch_norms_need_examples_to_calibrate_on(tiny_net, tiny_task):
    with pytest.raises(ConfigError, match="calibration_examples must be above 0 for a super-network with batch norms"):
        MaskedConfig(calibration_examples=0).bind(tiny_net, tiny_task)


@pytest.mark.parametrize("name", ["batch", "chunk", "memory_gb"])
def test_wrong_settings_are_refused(name):
    for value in (0, -1):
        with pytest.raises(ValueError, match=f"evaluator.{name} must be above 0, not {value}"):
            MaskedConfig(**{name: value})
