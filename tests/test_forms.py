"""Forms of layers that accelerators may have: equal to the usual ones, and in the programs that a GPU would be given."""

import re

import jax
import numpy as np
import pytest
from flax import nnx
from test_ways import logits, mobilenet, resnet, task_of
from tiny import close

from nasjax.evaluation import EVALUATORS, STRATEGIES, MaskedConfig, measure
from nasjax.supernets import moments
from nasjax.supernets.forms import VMAPPED

SETTINGS = {"batch": 4, "calibration_examples": 8, "chunk": 2}


@pytest.fixture(scope="module", params=["mobilenet", pytest.param("resnet", marks=pytest.mark.slow)])
def case(request):
    net, task = {"mobilenet": mobilenet, "resnet": resnet}[request.param](), task_of()
    archs = np.asarray(net.space.sample(jax.random.key(0), 3))
    return net, task, archs, logits(measure(MaskedConfig(**SETTINGS).bind(net, task), archs))


@pytest.mark.parametrize("way", [*STRATEGIES, "masked, at once"])
def test_kernels_may_take_the_gains_of_batch_norms(case, way):
    net, task, archs, wanted = case
    name, _, at_once = way.partition(", ")
    settings = SETTINGS | {"folded": True} | ({"at_once": True} if at_once else {})
    found = logits(measure(EVALUATORS[name](**settings).bind(net, task), archs))
    close(found, wanted, 1e-5)
    assert (found != wanted).any()  # Rounding: it is another program.


def gpu_program(bound, archs):
    """The re-calibration and the scoring of a population as an NVIDIA GPU would be given them, without one."""
    programs, texts = bound._strategy, []
    number, host = np.int32(len(archs)), ()
    blocks, _ = bound._steps
    with bound._traced():
        calibrate = programs.calibrate.trace(programs._weights, archs, number, bound._calibration, host=host)
        statistics = jax.eval_shape(
            lambda: programs.calibrate(programs._weights, archs, number, bound._calibration, host=host)
        )
        score = programs.score.trace(programs._weights, archs, number, statistics, blocks[0], host=host)
        for traced in (calibrate, score):
            texts.append(traced.lower(lowering_platforms=("cuda",)).as_text())
    return texts


def groups(text):
    return {int(number) for number in re.findall(r"feature_group_count = (\d+)", text)}


@pytest.mark.parametrize("devices", [1, 2])
@pytest.mark.parametrize("form", VMAPPED)
def test_an_evaluators_form_of_vmapped_convolutions_is_in_its_programs(form, devices):
    """Depthwise convolutions have a group for each channel of each network by `library`, of one network by `loop`."""
    net, task = mobilenet(), task_of()
    config = MaskedConfig(**SETTINGS | {"chunk": 4}, at_once=True, vmapped=form)
    bound = config.bind(net, task, devices=jax.devices()[:devices])
    kernels = depthwise_kernels(net)
    channels, fixed = set(kernels), set(kernels[:1])  # The first block is not elastic: its kernel is all networks' own.
    for text in gpu_program(bound, np.asarray(net.space.sample(jax.random.key(0), 4))):
        found = groups(text) - {1}
        if form == "loop":
            assert found == channels
        elif form == "products":
            assert found <= fixed
        else:
            assert found - fixed and not (found - fixed) & channels


def depthwise_kernels(net):
    """The channels of every depthwise kernel, first block first."""
    weights = [leaf[...] for path, leaf in nnx.to_flat_state(nnx.state(net, nnx.Param)) if path[-1] == "kernel"]
    return [kernel.shape[3] for kernel in weights if kernel.ndim == 4 and kernel.shape[0] > 1 == kernel.shape[2]]


def test_precision_and_moments_are_in_the_programs_too():
    net, task = mobilenet(), task_of()
    archs = np.asarray(net.space.sample(jax.random.key(0), 2))
    precisions = {"plain": "default", "exact": "float32", "rounded": "bfloat16"}
    bound = {name: MaskedConfig(**SETTINGS, precision=value).bind(net, task) for name, value in precisions.items()}
    bound["moments"] = MaskedConfig(**SETTINGS, one_pass=True).bind(net, task)
    texts = {name: gpu_program(evaluator, archs) for name, evaluator in bound.items()}
    for name, marks in {"plain": "f32", "exact": "HIGHEST", "rounded": "bf16"}.items():
        for text in texts[name]:
            convolutions = [line for line in text.splitlines() if "stablehlo.convolution" in line]
            assert convolutions and all(marks in line for line in convolutions)
            others = {"HIGHEST", "bf16"} - {marks}
            assert not any(mark in line for mark in others for line in convolutions)
    assert texts["plain"][0] != texts["moments"][0] and texts["plain"][1] == texts["moments"][1]


def test_moments_by_one_pass_re_calibrate_alike(monkeypatch, case):
    """The form of accelerators, run here on a CPU."""
    net, task, archs, wanted = case
    monkeypatch.setattr(moments, "two_passes", moments.one_pass)
    found = logits(measure(MaskedConfig(**SETTINGS).bind(net, task), archs))
    close(found, wanted, 1e-5)
    assert (found != wanted).any()
