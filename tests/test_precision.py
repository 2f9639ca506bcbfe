"""Evaluation in 16 bits and with products in float32: values, types, keys, and what programs are told."""

import subprocess
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_transformer
from test_ways import resnet
from tiny import architectures, easy_task, tiny_network

from nasjax.deploy.subnet import extract_subnet
from nasjax.errors import ConfigError
from nasjax.evaluation import EVALUATORS, STRATEGIES, measure
from nasjax.evaluation.totals import Totals
from nasjax.supernets.precision import network_in_bfloat16
from nasjax.supernets.runner import Subnet

SETTINGS = {"batch": 16, "calibration_examples": 48, "chunk": 4}


@pytest.fixture(scope="module")
def task():
    return easy_task()


@pytest.fixture(scope="module")
def net():
    return tiny_network(kernels=(3, 5))


@pytest.fixture(scope="module")
def archs(net):
    return np.asarray(net.space.canonical(np.array(architectures(net.space, 6), np.int32)))


@pytest.fixture(scope="module")
def exact(net, task, archs):
    return measure(EVALUATORS["masked"](**SETTINGS).bind(net, task), archs)["loss"]


SLOW = "switch", "masked"


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in [*STRATEGIES, "masked, at once"]],
)
def test_sixteen_bits_measure_nearly_what_thirty_two_do(net, task, archs, exact, name):
    """All strategies alike: errors are small beside the differences between networks, which keep their order."""
    name, _, at_once = name.partition(", ")
    settings = SETTINGS | {"precision": "bfloat16"} | ({"at_once": True} if at_once else {})
    found = measure(EVALUATORS[name](**settings).bind(net, task), archs)["loss"]
    off = np.abs(found - exact)
    assert 1e-6 < off.max() < 0.05 * np.ptp(exact)
    assert np.corrcoef(found, exact)[0, 1] > 0.999


@pytest.mark.parametrize("make", [tiny_network, resnet])
@pytest.mark.parametrize("traced", [False, True])
def test_maps_are_in_sixteen_bits_and_statistics_and_logits_in_thirty_two(make, traced):
    net = network_in_bfloat16(make())
    arch = net.space.largest()
    arch = jnp.asarray(arch, jnp.int32) if traced else tuple(map(int, arch))
    last = len(net.stages) - 1
    for statistics in (None, net.stored()):
        images = jnp.zeros((2, 7, 7, 3))
        for i in range(last):
            maps, _ = jax.eval_shape(lambda x, i=i, s=statistics: net.forward(x, arch, s, stop=i + 1), images)
            assert {leaf.dtype for leaf in jax.tree.leaves(maps)} == {jnp.bfloat16.dtype}, i
        logits, used = jax.eval_shape(lambda x, s=statistics: net.forward(x, arch, s), images)
        assert {leaf.dtype for leaf in jax.tree.leaves((logits, used))} == {jnp.float32.dtype}


@pytest.mark.parametrize("parallel", [True, False])
def test_a_transformer_multiplies_in_sixteen_bits_and_keeps_its_caches_in_thirty_two(parallel):
    net = tiny_transformer.CONFIG.create(0)
    inputs, arch = tiny_transformer.inputs(), tuple(map(int, net.space.largest()))

    def logits(net):
        run = Subnet(net, arch, net.stored())
        return run(inputs) if parallel else tiny_transformer.stepped(run, inputs)

    wanted, found = jax.jit(lambda: logits(net))(), jax.jit(lambda: logits(network_in_bfloat16(net)))()
    assert found.dtype == jnp.float32
    scale = np.abs(wanted).max()
    assert 1e-4 * scale < np.abs(found - wanted).max() < 0.05 * scale


def test_a_measurements_key_names_a_precision_other_than_the_default(net, task):
    plain = EVALUATORS["masked"](**SETTINGS)
    assert "precision" not in plain.bind(net, task).context["evaluator"]
    for precision in ("float32", "bfloat16"):
        context = replace(plain, precision=precision).bind(net, task).context
        assert context["evaluator"]["precision"] == precision
        assert context["weights"] == plain.bind(net, task).context["weights"]


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_runs_with_the_precision_of_its_setting(net, task, archs, name, monkeypatch):
    """On a CPU this changes no value; what programs would be traced with is looked at instead."""
    seen = []

    def totals(self, archs, *_):
        seen.append(jax.config.jax_default_matmul_precision)
        return Totals(np.ones(len(archs)), np.zeros((len(archs), 2)), np.zeros((len(archs), 2, 2)))

    for precision, wanted in {"default": None, "float32": "highest", "bfloat16": None}.items():
        bound = EVALUATORS[name](**SETTINGS, precision=precision).bind(net, task)
        monkeypatch.setattr(type(bound._strategy), "totals", totals)
        bound.totals(archs[:2])
        assert seen.pop() == wanted and not seen


def test_precisions_that_there_are_not():
    with pytest.raises(ConfigError, match=r"evaluator\.precision='float16' must be one of default, float32, bfloat16"):
        EVALUATORS["auto"](precision="float16")
    with pytest.raises(ConfigError, match=r"evaluator\.vmapped='shifts' must be one of library, loop, products"):
        EVALUATORS["masked"](vmapped="shifts")


def test_extraction_compares_in_float32_and_files_are_verified_on_the_cpu(net, task, monkeypatch, tmp_path):
    """An accelerator's default products differ by more than is tolerated. A CPU's do not: the settings are looked at."""
    seen, environments = [], []
    forward, run = type(net).forward, subprocess.run

    def watched(self, *arguments, **named):
        seen.append(jax.config.jax_default_matmul_precision)
        return forward(self, *arguments, **named)

    def started(*arguments, env, **named):
        environments.append(env)
        return run(*arguments, env=env, **named)

    evaluator = EVALUATORS["masked"](**SETTINGS).bind(net, task)
    arch = tuple(map(int, net.space.smallest()))
    statistics = evaluator.statistics(arch)
    monkeypatch.setattr(evaluator, "statistics", lambda arch: statistics)
    monkeypatch.setattr(type(net), "forward", watched)
    extracted = extract_subnet(net, evaluator, arch, task.validation.inputs[:4])
    assert seen == ["highest", "highest"]
    monkeypatch.setattr(subprocess, "run", started)
    extracted.export(tmp_path / "net.stablehlo")
    assert [environment["JAX_PLATFORMS"] for environment in environments] == ["cpu"]
