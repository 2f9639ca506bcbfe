"""A stated budget of memory is kept: fewer sub-networks at once, images block by block."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import ofa_golden as ofa
import pytest
from flax import nnx
from tiny import architectures, easy_task, tiny_network

from nasjax import supernets
from nasjax.evaluation import MaskedConfig, measure, memory
from nasjax.evaluation.blocks import batches_per_block, blocks_by_step
from nasjax.evaluation.programs import at_once, calibrations
from nasjax.supernets.resolution import RESOLUTIONS
from nasjax.tasks import Split

CONFIG = MaskedConfig(batch=16, calibration_examples=32, chunk=3, at_once=True)
"""Where sub-networks run in turn, memory does not limit their number."""


def holds(net, networks, config=CONFIG):
    """Gigabytes that hold a number of sub-networks, and a little more."""
    drawn = config.calibration_examples * 4 * np.prod(net.input_shape)
    weights = sum(leaf.nbytes for leaf in jax.tree.leaves(nnx.state(net)))
    held = 1.2 * (networks * (config.batch * memory.network_bytes(net) + 3 * weights) + drawn)
    return (held + memory.compiler_bytes(net)) / 1e9


@pytest.mark.slow
def test_less_memory_means_smaller_chunks_and_blocks_and_the_same_scores(tiny_net, monkeypatch):
    task = easy_task(sizes=(96, 90, 30))
    archs = np.array(architectures(tiny_net.space, 1), np.int32)
    whole = CONFIG.bind(tiny_net, task)
    monkeypatch.setattr(memory, "EXAMPLES_SHARE", 0.0001)
    small = replace(CONFIG, memory_gb=holds(tiny_net, 2)).bind(tiny_net, task)
    assert (whole.chunk, len(whole._steps[0])) == (3, 1)
    assert small.chunk == 2
    assert len(small._steps[0]) > 1
    parts = [small(archs[:2]), small(archs[2:])]
    for name, values in whole(archs).items():
        np.testing.assert_allclose(np.concatenate([part[name] for part in parts]), values, rtol=1e-5)


@pytest.mark.slow
def test_fewer_images_are_scored_at_a_time_where_memory_holds_no_more(tiny_net):
    """A small batch re-calibrates, as few training images do: the batch to be scored is cut, the scores are the same."""
    task = easy_task(sizes=(4, 90, 30))
    archs = np.array(architectures(tiny_net.space, 0), np.int32)
    whole = CONFIG.bind(tiny_net, task)
    cut = replace(CONFIG, memory_gb=holds(tiny_net, 1, replace(CONFIG, batch=5))).bind(tiny_net, task)
    assert (whole.batch, cut.chunk) == (15, 1)  # two devices, three even batches on each
    assert 4 <= cut.batch < 15
    found = measure(cut, archs)
    for name, values in whole(archs).items():
        np.testing.assert_allclose(found[name], values, rtol=1e-5)


@pytest.mark.slow
def test_another_split_shares_programs_and_one_split_at_a_time_is_on_the_device(tiny_net):
    """Of 90 images and of 30: no second program is compiled, the values are those of an evaluator of its own."""
    task = easy_task(sizes=(96, 90, 30))
    archs = np.array(architectures(tiny_net.space, 1), np.int32)
    validation = CONFIG.bind(tiny_net, task)
    found = validation(archs)
    test = validation.on("test")
    assert "_steps" not in vars(validation)
    alone = CONFIG.bind(tiny_net, task, "test")
    for name, values in alone(archs).items():
        np.testing.assert_allclose(test(archs)[name], values, rtol=1e-5)
    assert test.context == alone.context != validation.context
    test.release()
    assert "_steps" not in vars(test) and test._strategy.score._cache_size() == 0
    for name, values in validation(archs).items():
        np.testing.assert_array_equal(values, found[name])
    assert validation._strategy.calibrate._cache_size() == validation._strategy.score._cache_size() == 1


def test_blocks_hold_every_image_once_in_order():
    images, labels = np.arange(70.0).reshape(70, 1, 1, 1).astype(np.float32), np.arange(70, dtype=np.int32)
    for room in (1, 40, 200, 10**6):
        (blocks,) = blocks_by_step(Split(images, labels), 10, batches_per_block(images, 70, 10, room))
        kept = np.concatenate([np.asarray(block.weights).ravel() for block in blocks]) == 1
        for part, wanted in ((0, images.ravel()), (1, labels)):
            np.testing.assert_array_equal(np.concatenate([np.asarray(b[part]).ravel() for b in blocks])[kept], wanted)
        assert len({block[0].shape for block in blocks}) == 1
        assert all(block[0].nbytes <= max(room, 40) for block in blocks)


def test_memory_that_does_not_hold_one_network_is_refused(tiny_net, tiny_task):
    with pytest.raises(ValueError, match=r"too small to re-calibrate one network on a batch of evaluator\.batch=16"):
        replace(CONFIG, memory_gb=holds(tiny_net, 0.5)).bind(tiny_net, tiny_task)


def test_the_batch_that_fits_is_named_and_fits(tiny_net, tiny_task):
    little = replace(CONFIG, memory_gb=holds(tiny_net, 0.6))
    with pytest.raises(ValueError, match=r"set evaluator\.batch=\d+, or allow more memory") as refused:
        little.bind(tiny_net, tiny_task)
    fits = int(str(refused.value).split("set evaluator.batch=")[1].split(",")[0])
    assert 0 < fits < CONFIG.batch
    assert replace(little, batch=fits).bind(tiny_net, tiny_task).chunk == 1


def test_memory_too_small_for_one_image_is_refused_in_one_line(tiny_net, tiny_task):
    with pytest.raises(ValueError, match=r"is too small .* nor does one example fit: more memory is needed$"):
        replace(CONFIG, memory_gb=1e-5).bind(tiny_net, tiny_task)


def test_what_xla_reserves_stays_within_the_estimate():
    net = tiny_network(image_size=24)
    graph, weights = nnx.split(net)
    archs = jnp.asarray(np.array(architectures(net.space, 1), np.int32))
    drawn = jnp.zeros((2, 16, *net.input_shape))
    program = jax.jit(calibrations(graph, lambda net: net, at_once), static_argnames="host")
    run = program.lower(weights, archs, np.int32(len(archs)), drawn, host=())
    reserved = run.compile().memory_analysis().temp_size_in_bytes
    estimated = len(archs) * 16 * memory.network_bytes(net)
    assert 0.2 * estimated < reserved < 1.05 * estimated  # so small, all that is beside activations counts


def planned(net):
    config = MaskedConfig()
    return memory.plan(
        config, config.needs(net), net, np.zeros((3, 100, *net.input_shape), np.float32), net.inputs(1), 10_000
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", ofa.NAMES)
def test_full_size_networks_fit_the_default_memory_with_the_default_batch(name):
    net = supernets.create(name)
    plan = planned(net)
    assert plan.batch == 100 and plan.chunk >= 1
    assert plan.room >= 100 * 4 * np.prod(net.input_shape)
    net.resolutions = RESOLUTIONS
    plan = planned(net)
    assert plan.batch >= 40 and plan.chunk >= 1


START = """
import sys
import jax
import nasjax
import numpy as np
from nasjax import supernets
from nasjax.evaluation import MaskedConfig
from nasjax.tasks import ImageClassification
from nasjax.tasks import Split

def kilobytes(line):
    return next(int(words.split()[1]) for words in open("/proc/self/status") if words.startswith(line))

def split(number):
    return Split(rng.standard_normal((number, 224, 224, 3), np.float32), np.zeros(number, np.int32))

rng = np.random.default_rng(0)
resolutions = tuple(map(int, sys.argv[3:]))
net = supernets.create(sys.argv[1], resolutions=resolutions)
task = ImageClassification(split(32), split(32), split(16), 1000)
config = MaskedConfig(batch=16, calibration_examples=32, memory_gb=float(sys.argv[2]))
before = kilobytes("VmRSS:")
"""

EVALUATED = """
evaluator = config.bind(net, task)
ends = np.stack([net.space.largest(), net.space.smallest()])
for resolution in range(max(1, len(resolutions))):
    for arch in ends:
        if resolutions:
            arch[0] = resolution
        evaluator(arch[None])
"""

SEARCHED = """
front = nasjax.search(net, task, tactic="random", evaluations=2, evaluator=config)
front.select().extract()
"""

GROWN = """
print((kilobytes("VmHWM:") - before) * 1024 / 1e9)
"""


def grown(steps, name, budget, *resolutions):
    """Gigabytes by which a process grows at most that takes these steps after START."""
    command = [sys.executable, "-c", START + steps + GROWN, name, str(budget), *map(str, resolutions)]
    # The budget is each device's: these tests' second one would take as much again of the same memory.
    alone = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=1"}
    done = subprocess.run(command, capture_output=True, text=True, env=alone)
    assert done.returncode == 0, done.stderr
    print(f"{name}: {float(done.stdout):.2f} GB with {budget} GB stated")
    return float(done.stdout)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the memory of a process is read from /proc")
@pytest.mark.parametrize(
    ("name", "budget", "resolutions"),
    [(ofa.NAMES[1], 1.3, ()), (ofa.NAMES[3], 1.2, ()), (ofa.NAMES[0], 1.9, (160, 192, 224))],
)
def test_a_process_that_evaluates_full_size_networks_grows_by_no_more_than_the_budget(name, budget, resolutions):
    assert grown(EVALUATED, name, budget, *resolutions) < budget


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the memory of a process is read from /proc")
def test_a_process_that_searches_and_extracts_grows_by_no_more_than_the_budget():
    """Validation, the front on the test images, extraction and its check."""
    assert grown(SEARCHED, ofa.NAMES[0], 1.2) < 1.2
