"""evaluator=auto: a rule of sizes picks the strategy, and metrics are those of every strategy."""

from dataclasses import replace

import jax
import numpy as np
import pytest
from toy_translation import translation, translator

from nasjax import supernets
from nasjax.evaluation import AutoConfig, MaskedConfig, PrefixConfig, SwitchConfig, auto, strategies
from nasjax.evaluation.auto import ACCELERATOR_SPEEDS, SPEEDS, estimated_seconds
from nasjax.evaluation.memory import TooLarge
from nasjax.hardware.costs import cost_tables
from nasjax.searches.problem import search_problem
from nasjax.tasks.base import Split
from nasjax.tasks.image_classification import ImageClassification


class Large(MaskedConfig):
    def needs(self, net):
        raise TooLarge("evaluator.memory_gb=4 does not hold one network")


def images(net, number):
    """A task whose images, of which there are many, take no memory."""
    pixels = np.broadcast_to(np.float32(0), (number, *net.inputs(1).shape[1:]))
    split = Split(pixels, np.zeros(number, np.int32))
    return ImageClassification(split, split, split, 10)


def fastest(net, task, devices=1):
    seconds = estimated_seconds(net, task, 300, devices)
    return min(seconds, key=seconds.get)


def test_small_networks_are_masked():
    digits = supernets.create("digits")
    assert fastest(digits, images(digits, 600)) == "masked"


@pytest.mark.slow
def test_full_size_networks_run_at_their_own_cost():
    for name in ("ofa_mbv3_d234_e346_k357_w1.0", "ofa_resnet50"):
        net = supernets.create(name)
        assert fastest(net, images(net, 10_000)) in ("switch", "prefix")
        assert fastest(net, images(net, 10_000), devices=2) == "switch"


def test_accelerators_mask_small_networks_and_few_and_share_what_many_large_ones_have_in_common(tiny_net):
    """The constants give the seconds that were measured; 16 networks are done sooner by `masked`, a search by `prefix`."""

    def fastest(net, task, networks, devices=1):
        seconds = estimated_seconds(net, task, 500, devices, networks, ACCELERATOR_SPEEDS)
        return min(seconds, key=seconds.get)

    net = supernets.create("ofa_mbv3_d234_e346_k357_w1.0")
    seconds = estimated_seconds(net, images(net, 1000), 500, 1, 16, ACCELERATOR_SPEEDS)
    assert seconds == {"masked": pytest.approx(43 + 17, rel=0.1), "prefix": pytest.approx(98 + 4.8, rel=0.1)}
    assert fastest(net, images(net, 1000), 16) == "masked"
    assert fastest(net, images(net, 10_000), 250) == "prefix"
    assert fastest(net, images(net, 10_000), 250, devices=2) == "masked"  # `prefix` would use one of them.
    digits = supernets.create("digits")
    assert fastest(digits, images(digits, 600), 250) == "masked"


def test_more_examples_make_computing_count_and_fewer_compiling(tiny_net):
    """The more there is to compute, the less is a strategy taken that computes more than another."""
    chosen = [fastest(tiny_net, images(tiny_net, number), devices=2) for number in (10, 1_000, 10_000_000)]
    assert chosen[0] == "masked" and chosen[-1] == "switch"
    assert chosen == sorted(chosen)  # From masked to switch, and not back.


def test_seconds_grow_by_exact_costs(tiny_net):
    """Twice the difference of examples, twice the difference of seconds: as many as the cost table says."""
    macs = cost_tables(tiny_net)["macs"].exact(np.stack([tiny_net.space.largest(), tiny_net.space.smallest()]))
    few, many = (estimated_seconds(tiny_net, images(tiny_net, number), 0) for number in (100, 300))
    for name, computed in {"masked": macs[0], "switch": macs.mean(), "prefix": macs.mean()}.items():
        expected = auto.NETWORKS * 200 * computed / 1e9 * SPEEDS[name].computing
        assert many[name] - few[name] == pytest.approx(expected, rel=0.1)  # Kernels are transformed, too.


def test_a_search_s_evaluations_decide(tiny_net):
    """Few networks are not worth what compiling their branches takes, many are; what a person says comes first."""
    task, one = images(tiny_net, 30_000), jax.devices()[:1] * 2
    chosen = [AutoConfig().expecting(number).bind(tiny_net, task, devices=one).config for number in (4, 100_000)]
    assert [type(config) for config in chosen] == [MaskedConfig, SwitchConfig]
    assert AutoConfig(networks=7).expecting(100).networks == 7


def test_what_is_expected_is_no_part_of_the_record(monkeypatch, tiny_net, tiny_task):
    asked = []
    monkeypatch.setattr(auto, "estimated_seconds", lambda *given: asked.append(given[4]) or {"masked": 1.0})
    problems = [search_problem(tiny_net, tiny_task, "auto", networks=number) for number in (9, None)]
    assert asked == [9, auto.NETWORKS]
    assert problems[0].origin == problems[1].origin


def test_stages_that_repeat_are_not_shared():
    assert set(estimated_seconds(translator(), translation(), 0)) == {"masked", "switch"}


def test_all_settings_are_passed_on_and_the_key_names_no_strategy(tiny_net, tiny_task, caplog):
    config = AutoConfig(batch=16, calibration_examples=16, chunk=2, seed=3, cache_gb=0.5)
    with caplog.at_level("INFO"):
        found = config.bind(tiny_net, tiny_task, devices=jax.devices()[:1])
    assert found.remark.startswith("evaluator=auto: masked (estimated CPU seconds for 128 sub-networks: masked ")
    assert "evaluator=auto" not in caplog.text  # Nothing is evaluated yet, and settings may be mistaken.
    assert found.config == MaskedConfig(batch=16, calibration_examples=16, chunk=2, seed=3)
    assert config.of_strategy("prefix") == PrefixConfig(batch=16, calibration_examples=16, chunk=2, seed=3, cache_gb=0.5)
    assert found.context == replace(config.of_strategy("switch")).bind(tiny_net, tiny_task).context


def test_where_memory_is_too_small_the_next_is_taken(monkeypatch, tiny_net, tiny_task):
    config = AutoConfig(batch=16, calibration_examples=16, chunk=2)
    monkeypatch.setattr(strategies, "STRATEGIES", {"masked": Large, "switch": SwitchConfig, "prefix": Large})
    assert isinstance(config.bind(tiny_net, tiny_task).config, SwitchConfig)
    monkeypatch.setattr(strategies, "STRATEGIES", dict.fromkeys(("masked", "switch", "prefix"), Large))
    with pytest.raises(TooLarge, match="does not hold one network"):
        config.bind(tiny_net, tiny_task)
