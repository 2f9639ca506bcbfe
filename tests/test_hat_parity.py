"""The original Hardware-aware Transformers compute the same: golden values of its own code (tests/golden/make_hat.py)."""

import csv
from ast import literal_eval
from pathlib import Path
from types import SimpleNamespace

import golden_rows
import hat_golden as hat
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tiny_transformer import stepped

from nasjax import supernets
from nasjax.evaluation.switch import Switched
from nasjax.hardware.costs import cost_tables
from nasjax.supernets.extract import extract
from nasjax.supernets.hat.lists import from_hat
from nasjax.supernets.runner import Subnet
from nasjax.tasks.translation import Translation

TOLERANCE = 2e-5
"""Of the scale of the values."""

ROWS = range(14)
UNOPTIMISED = {"xla_backend_optimization_level": 0}


def known_logits(logits, inputs):
    """Logits of tokens that are no padding, of those words that golden values have."""
    return np.asarray(logits * (inputs["target"] != 1)[..., None])[..., :: hat.STEP]


def static(name, row):
    """The row-th sub-network as a network of its own, and its architecture."""
    net = hat.network(name)
    arch = tuple(map(int, hat.archs(name, net)[row]))
    return extract(net, arch), arch


def check(name, row, net, arch, sides):
    values, (graph, weights) = hat.golden(name), nnx.split(net)

    def run(weights, inputs, call):
        return call(Subnet(nnx.merge(graph, weights), arch, net.stored()), inputs)

    words = {"words": jnp.asarray(values["following"], jnp.int32)}
    # They run a few sentences: what the compiler's optimisation takes is not earned back.
    run = jax.jit(run, static_argnums=2, compiler_options=UNOPTIMISED)
    for side in sides:
        inputs = hat.inputs(name, side)
        for call in (Subnet.__call__, stepped):
            logits = run(weights, inputs, call)
            assert hat.deviation(known_logits(logits, inputs), values[f"logits_{side}"][row]) < TOLERANCE, (row, side)
            means = Translation.loss(SimpleNamespace(label_smoothing=0.1), logits, words)
            sums = means * (words["words"] != 1).sum(1)
            assert hat.deviation(sums, values[f"losses_{side}"][row]) < TOLERANCE, (row, side)


@pytest.mark.parametrize(
    ("name", "row", "side"), [pytest.param(hat.WMT, 4, "right", marks=pytest.mark.slow), (hat.IWSLT, 5, "left")]
)
def test_logits_and_losses_equal_the_original_s_at_once_and_step_by_step(name, row, side):
    """A random architecture of each space; the slow tests below have all."""
    net = hat.network(name)
    arch = tuple(map(int, hat.archs(name, net)[row]))
    check(name, row, net, arch, [side])


@pytest.mark.slow
@pytest.mark.parametrize(("name", "row"), [(hat.NAMES[row % 2], row) for row in golden_rows.ROWS])
def test_extracted_networks_logits_equal_the_original_s(name, row):
    """Some architectures of each space; the masked tests below have all."""
    net, _ = static(name, row)
    check(name, row, net, (0,) * len(net.space.genes), hat.SIDES)


@pytest.mark.slow
@pytest.mark.parametrize("side", hat.SIDES)
@pytest.mark.parametrize("name", hat.NAMES)
def test_masked_and_switched_logits_equal_the_original_s(name, side):
    net, inputs = hat.network(name), hat.inputs(name, side)
    graph, weights = nnx.split(net)
    archs = jnp.asarray(hat.archs(name, net), jnp.int32)

    @jax.jit
    def masked(weights, archs):
        net = nnx.merge(graph, weights)
        return jax.vmap(lambda arch: Subnet(net, arch, net.stored())(inputs))(archs)

    @jax.jit
    def masked_steps(weights, archs):
        net = nnx.merge(graph, weights)
        return jax.vmap(lambda arch: stepped(Subnet(net, arch, net.stored()), inputs))(archs)

    @jax.jit
    def switched(weights, archs):
        net = nnx.merge(graph, weights)
        return jax.lax.map(lambda arch: stepped(Subnet(Switched(net), arch, net.stored()), inputs), archs)

    for run in (masked, masked_steps, switched):
        logits = known_logits(run(weights, archs), inputs)
        for row in ROWS:
            assert hat.deviation(logits[row], hat.golden(name)[f"logits_{side}"][row]) < TOLERANCE, (run, row)


def encoder_states(net, inputs, arch):
    """States of tokens that are no padding, those columns that golden values have."""
    carry = net.forward(inputs, arch, None, stop=1 + 2 * net.config.encoder_layers)[0]
    states = carry["encoded"][0] * (inputs["source"] != 1)[..., None]
    return jnp.pad(states, ((0, 0), (0, 0), (0, 640 - states.shape[-1])))[..., :: hat.STEP]


@pytest.mark.parametrize("name", hat.NAMES)
def test_encoder_states_equal_the_original_s(name, row=3):
    net = hat.network(name)
    arch = tuple(map(int, hat.archs(name, net)[row]))
    for side in hat.SIDES:
        states = encoder_states(net, hat.inputs(name, side), arch)
        assert hat.deviation(states, hat.golden(name)[f"states_{side}"][row]) < TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("side", hat.SIDES)
@pytest.mark.parametrize("name", hat.NAMES)
def test_masked_encoder_states_equal_the_original_s(name, side):
    net, inputs = hat.network(name), hat.inputs(name, side)
    states = jax.jit(jax.vmap(lambda arch: encoder_states(net, inputs, arch)))(jnp.asarray(hat.archs(name, net), jnp.int32))
    for row in ROWS:
        assert hat.deviation(states[row], hat.golden(name)[f"states_{side}"][row]) < TOLERANCE, row


@pytest.mark.slow
@pytest.mark.parametrize("name", hat.NAMES)
def test_parameters_equal_the_original_s_count_which_leaves_embeddings_and_word_scores_out(name):
    net = nnx.eval_shape(hat.config(name).create)
    table = cost_tables(net)["params"]
    archs = hat.archs(name, net)
    found = table.exact(archs)
    source, target = hat.WORDS[name]
    width = hat.golden(name)
    tables = source * width["encoder_embed_dim"] + target * width["decoder_embed_dim"]
    if name == hat.IWSLT:
        tables = tables + target * width["decoder_embed_dim"]
    np.testing.assert_array_equal(found - tables, width["params"])


TRACES = Path(__file__).parents[2] / "shared" / "data" / "dynast-traces" / "tests_inputs_transformerlt.csv"


@pytest.mark.skipif(not TRACES.is_file(), reason="needs DyNAS-T's logs")
def test_macs_and_parameters_equal_those_that_dynast_logged():
    """torchprofile also counts elementwise products: the scaling of embeddings and queries, layer norms, and shapes."""
    net = supernets.abstract(hat.WMT).shapes(30)
    costs = cost_tables(net)
    rows = list(csv.DictReader(TRACES.open()))
    assert len(rows) == 19
    for row in rows:
        lists = literal_eval(row["Sub-network"])
        arch = net.space.encode(from_hat(net, lists))[None]
        encoder, decoder, depth = (
            lists[name][0] for name in ("encoder_embed_dim", "decoder_embed_dim", "decoder_layer_num")
        )
        scaled = 30 * (encoder + decoder) + 6 * 30 * 512 + depth * 2 * 30 * 512
        normed = 6 * 2 * 30 * encoder + depth * 3 * 30 * decoder
        # The file's columns are shifted (SOURCE.md).
        assert int(row["Latency (ms)"]) == costs["macs"].exact(arch)[0] + scaled + normed + 78 + 6 * depth
        assert int(row["MACs"]) == costs["params"].exact(arch)[0] - 32768 * (encoder + decoder)
