"""The original Once-for-All answers the same: against golden values made with its own code (tests/golden/make_ofa.py)."""

import jax
import jax.numpy as jnp
import numpy as np
import ofa_golden as ofa
import pytest
from flax import nnx
from golden_rows import ROWS

from nasjax.evaluation.calibration import calibrate
from nasjax.hardware.costs import cost_tables
from nasjax.jaxprs import jaxpr_macs
from nasjax.supernets import elastic, squeeze_excite
from nasjax.supernets.cpu import convolution
from nasjax.supernets.extract import extract
from nasjax.supernets.families import resnet

TOLERANCE = 5e-5
"""Of the logits' scale; in PyTorch alone float32 and float64 differ by 1e-5."""

MOBILENET, _, PROXYLESS, RESNET = ofa.NAMES


def _static(arch):
    return tuple(map(int, arch))


def _check_static(net, name, size, row):
    """The row's logits, as the sub-network itself; returns its architecture, images and re-calibrated statistics."""
    arch = _static(ofa.archs(name, net)[row])
    batches = jnp.asarray(ofa.images(name, size))
    found, statistics = ofa.static(net, arch, batches)
    for kind, logits in found.items():
        assert ofa.deviation(name, size, kind, slice(row, row + 1), logits[None]) < TOLERANCE, (row, kind)
    return arch, batches, statistics


@pytest.mark.parametrize("name", [MOBILENET, RESNET])
def test_logits_equal_the_original_s_with_stored_and_recalibrated_statistics(name):
    """The first random architecture of a network of each family; the slow tests below have all of all four."""
    _check_static(ofa.network(name, 80), name, 80, 2)


@pytest.mark.slow
@pytest.mark.parametrize("size", ofa.SIZES)
@pytest.mark.parametrize("name", ofa.NAMES)
def test_masked_logits_equal_the_original_s_with_stored_and_recalibrated_statistics(name, size):
    net = ofa.network(name, size)
    archs = ofa.archs(name, net)
    for kind, logits in ofa.masked(net, archs, ofa.images(name, size)).items():
        assert ofa.deviation(name, size, kind, slice(None), logits) < TOLERANCE, kind


@pytest.mark.slow
@pytest.mark.parametrize(("size", "row"), [(80, row) for row in ROWS] + [(96, 2)])
@pytest.mark.parametrize("half", [0, 1])
def test_static_and_extracted_logits_equal_the_original_s(half, size, row):
    """Some architectures of all four networks; the masked test above has all."""
    name = ofa.NAMES[2 * half + row % 2]
    net = ofa.network(name, size)
    arch, batches, statistics = _check_static(net, name, size, row)
    graph, weights = nnx.split(extract(net, arch, statistics))
    run = jax.jit(lambda weights, images: nnx.merge(graph, weights)(images), compiler_options=ofa.UNOPTIMISED)
    extracted = run(weights, batches[0])
    assert ofa.deviation(name, size, "calibrated", slice(row, row + 1), extracted[None]) < TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("name", ofa.NAMES)
def test_macs_and_params_equal_counts_on_the_original_s_extracted_networks(name):
    for size in ofa.SIZES:
        net = ofa.network(name, size)
        archs = ofa.archs(name, net)
        costs = {cost: table.exact(archs) for cost, table in cost_tables(net).items()}
        np.testing.assert_array_equal(costs["macs"], ofa.golden(name)[f"macs_{size}"])
        np.testing.assert_array_equal(costs["params"], ofa.golden(name)["params"])


@pytest.mark.slow
@pytest.mark.parametrize("name", ofa.NAMES)
def test_macs_equal_a_walk_over_the_jaxpr_of_the_extracted_network_built_of_xla_s_convolutions(name, monkeypatch, size=80):
    net = ofa.network(name, size)
    library = convolution.library_convolution
    monkeypatch.setattr(elastic, "convolve", lambda x, weight, stride, own: library(x, weight, stride))
    monkeypatch.setattr(elastic, "pointwise", lambda x, weight: library(x, weight, 1))
    monkeypatch.setattr(elastic, "depthwise", lambda x, weight, stride: library(x, weight, stride, groups=x.shape[-1]))
    for row in (0, 1, 2):
        arch = _static(ofa.archs(name, net)[row])
        small = nnx.eval_shape(lambda arch=arch: extract(net, arch))
        graph, weights = nnx.split(small)

        def run(weights, images, graph=graph):
            return nnx.merge(graph, weights)(images)

        jaxpr = jax.make_jaxpr(run)(weights, net.inputs(1)).jaxpr
        assert "conv_general_dilated" in str(jaxpr) and str(jaxpr).count("dot_general[") == 1  # the classifier
        assert jaxpr_macs(jaxpr) == ofa.golden(name)[f"macs_{size}"][row]


# -- mistakes: each, made on purpose, must be seen --------------------------------------------------------------------------


def _transposed_transforms(patch, net):
    for stage in net.stages[2:-1]:
        for matrix in stage.depthwise.conv.transforms.values():
            matrix[...] = matrix[...].T


def _plain_crops(patch, net):
    for stage in net.stages[2:-1]:
        for matrix in stage.depthwise.conv.transforms.values():
            matrix[...] = np.eye(len(matrix[...]), dtype=np.float32)


def _soft_sigmoid(patch, net):
    patch.setitem(convolution.ACTIVATIONS, "h_sigmoid", jax.nn.sigmoid)


def _full_excitation(patch, net):
    def gains(self, pooled, width):
        middle = jax.nn.relu(self.reduce(pooled))
        return convolution.ACTIVATIONS["h_sigmoid"](self.expand(middle, width))

    patch.setattr(squeeze_excite.SqueezeExcite, "gains", gains)


def _padding_at_the_end(patch, net):
    shifted = convolution._shifted_views

    def same(x, size, stride):
        """As TensorFlow pads: windows of stride 2 begin one pixel later."""
        if stride == 1:
            return shifted(x, size, stride)
        later = jnp.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0)))[:, 1:, 1:]
        return shifted(later, size, stride)

    patch.setattr(convolution, "_shifted_views", same)


def _other_epsilon(patch, net):
    for stage in net.stages:
        for norm in stage.norms().values():
            norm.epsilon = 1e-5


def _zero_padded_average(patch, net):
    def pool(x, size):
        if size == 1:
            return x
        x = jnp.pad(x, ((0, 0), (0, x.shape[1] % 2), (0, x.shape[2] % 2), (0, 0)))
        return x.reshape(x.shape[0], x.shape[1] // 2, 2, x.shape[2] // 2, 2, x.shape[3]).mean((2, 4))

    patch.setattr(resnet, "average_pool", pool)


def _middle_width_of_the_input(patch, net):
    def middles(self):
        source = self.inputs.options(self.genes[0])
        return tuple(elastic.make_divisible(round(w * e)) for w in source for e in self.genes[-1].options)

    patch.setattr(resnet.Bottleneck, "hidden_widths", middles)


def _stem_block_whatever_its_depth(patch, net):
    patch.setattr(resnet.StemBlock, "skipped", lambda self, choice: False)


MISTAKES = (
    (MOBILENET, _transposed_transforms),
    (MOBILENET, _plain_crops),
    (MOBILENET, _soft_sigmoid),
    (MOBILENET, _full_excitation),
    (MOBILENET, _padding_at_the_end),
    (PROXYLESS, _other_epsilon),
    (RESNET, _zero_padded_average),
    (RESNET, _middle_width_of_the_input),
    (RESNET, _stem_block_whatever_its_depth),
)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "mistake"), MISTAKES)
def test_golden_values_see_a_mistake(monkeypatch, name, mistake):
    net = ofa.network(name, 80)
    archs = ofa.archs(name, net)[:6]
    mistake(monkeypatch, net)
    for kind, logits in ofa.masked(net, archs, ofa.images(name, 80)).items():
        found = ofa.deviation(name, 80, kind, slice(0, 6), logits)
        print(f"{mistake.__name__} {kind}: {found:.1e}")
        assert found > 10 * TOLERANCE, kind


@pytest.mark.slow
def test_golden_values_see_moments_that_are_pooled_over_batches():
    net = ofa.network(MOBILENET, 80)
    batches = jnp.asarray(ofa.images(MOBILENET, 80))
    pooled = batches.reshape(1, -1, *batches.shape[2:])
    arch = net.space.smallest()
    statistics = jax.jit(lambda arch: calibrate(net, arch, pooled))(arch)
    logits = jax.jit(lambda arch: net.forward(batches[0], arch, statistics)[0])(arch)
    assert ofa.deviation(MOBILENET, 80, "calibrated", slice(1, 2), logits[None]) > 10 * TOLERANCE
