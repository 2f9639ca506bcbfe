"""evaluator=timed: the fastest strategy by a clock, its times stored and logged, and its metrics those of every strategy."""

import json
import logging
from dataclasses import replace
from itertools import count

import numpy as np
import pytest

from nasjax.errors import ConfigError
from nasjax.evaluation import STRATEGIES, MaskedConfig, TimedConfig, strategies, timed
from nasjax.evaluation.memory import TooLarge

SMALL = TimedConfig(batch=16, calibration_examples=16, chunk=2)


class Large(MaskedConfig):
    def needs(self, net):
        raise TooLarge("evaluator.memory_gb=4 does not hold one network")


class Wrong(MaskedConfig):
    def needs(self, net):
        raise ValueError("shapes differ")


def replace_strategies(monkeypatch, table):
    for module in (strategies, timed):
        monkeypatch.setattr(module, "STRATEGIES", table)


@pytest.fixture
def two(monkeypatch):
    """Two ways, one of which the memory does not hold."""
    replace_strategies(monkeypatch, {"masked": MaskedConfig, "switch": Large})


@pytest.fixture
def figures(monkeypatch):
    """Seconds as if measured, and how often they were asked for."""
    asked = []

    def seconds(self, net, task):
        asked.append(self)
        return {"masked": 2.0, "switch": 0.5, "prefix": np.inf}

    monkeypatch.setattr(TimedConfig, "seconds", seconds)
    return asked


def test_a_way_takes_what_its_clock_says_and_one_too_large_is_infinite(two, tiny_net, tiny_task, caplog):
    ticks = count(step=7.0)
    with caplog.at_level(logging.INFO):
        seconds = SMALL.seconds(tiny_net, tiny_task, lambda: next(ticks))
    assert seconds == {"masked": 7.0 / 4, "switch": np.inf}
    assert "timing masked, switch" in caplog.text


def test_the_median_of_rounds_in_turn_counts_and_a_mistake_is_no_lack_of_memory(monkeypatch, tiny_net, tiny_task):
    replace_strategies(monkeypatch, {"masked": MaskedConfig, "switch": MaskedConfig})
    took = iter([4, 40, 8, 16, 400, 20])  # masked and switch in turn; a way each 4 networks
    now = [0.0]

    def clock():
        now[0] += next(took) if clock.running else 0.0
        clock.running = not clock.running
        return now[0]

    clock.running = False
    assert SMALL.seconds(tiny_net, tiny_task, clock) == {"masked": 8 / 4, "switch": 20 / 4}
    replace_strategies(monkeypatch, {"masked": MaskedConfig, "switch": Wrong})
    with pytest.raises(ValueError, match="shapes differ"):
        SMALL.seconds(tiny_net, tiny_task)


def test_nothing_that_fits_is_told_as_by_a_way_alone(monkeypatch, tiny_net, tiny_task):
    replace_strategies(monkeypatch, {"masked": Large, "switch": Large})
    with pytest.raises(ValueError, match="does not hold one network"):
        SMALL.seconds(tiny_net, tiny_task)


def test_the_quickest_is_taken_with_all_settings_and_told(figures, tiny_net, tiny_task, caplog):
    with caplog.at_level(logging.INFO):
        found = replace(SMALL, seed=3).bind(tiny_net, tiny_task)
    assert found.config == STRATEGIES["switch"](batch=16, calibration_examples=16, chunk=2, seed=3)
    assert "switch is fastest (seconds a sub-network: masked 2, switch 0.5, prefix too large)" in caplog.text
    assert SMALL.of_strategy("prefix") == STRATEGIES["prefix"](batch=16, calibration_examples=16, chunk=2)
    # Values do not depend on the way: their key does not name it.
    assert found.context == STRATEGIES["masked"](batch=16, calibration_examples=16, seed=3).bind(tiny_net, tiny_task).context


def test_times_are_stored_for_the_same_network_device_and_batch(figures, tiny_net, tiny_task, tmp_path, monkeypatch):
    config = replace(SMALL, file=str(tmp_path / "deep" / "strategies.jsonl"))
    config.bind(tiny_net, tiny_task)
    replace(config, seed=1).bind(tiny_net, tiny_task)
    assert len(figures) == 1
    replace(config, batch=8).bind(tiny_net, tiny_task)
    assert len(figures) == 2
    monkeypatch.setattr(timed, "processor_name", lambda: "another")
    config.bind(tiny_net, tiny_task)
    assert len(figures) == 3
    assert len((tmp_path / "deep" / "strategies.jsonl").read_text().splitlines()) == 3


@pytest.mark.parametrize("line", ['{"key": ', '{"key": "KEY"}', '{"key": "KEY", "seconds": {"masked": "x"}}'])
def test_a_line_that_is_not_whole_is_passed_over(figures, tiny_net, tiny_task, tmp_path, line):
    file = tmp_path / "strategies.jsonl"
    config = replace(SMALL, file=str(file))
    config.bind(tiny_net, tiny_task)
    key = json.loads(file.read_text())["key"]
    file.write_text(line.replace("KEY", key) + "\n")
    assert config.bind(tiny_net, tiny_task).config == SMALL.of_strategy("switch")
    assert len(figures) == 2


def test_a_file_of_something_else_is_refused_and_left_alone(figures, tiny_net, tiny_task, tmp_path):
    (tmp_path / "notes.txt").write_text("[1, 2]\n")
    with pytest.raises(ConfigError, match=r"evaluator.file=.*notes.txt is not a file of stored times; name another file"):
        replace(SMALL, file=str(tmp_path / "notes.txt")).bind(tiny_net, tiny_task)
    assert (tmp_path / "notes.txt").read_text() == "[1, 2]\n" and not figures


def test_a_file_that_cannot_be_written_costs_nothing_but_its_memory(figures, tiny_net, tiny_task, tmp_path, caplog):
    (tmp_path / "file").write_text("")
    found = replace(SMALL, file=str(tmp_path / "file" / "strategies.jsonl")).bind(tiny_net, tiny_task)
    assert found.config == SMALL.of_strategy("switch") and "cannot be written" in caplog.text


def test_half_of_similar_architectures_are_mutations_of_the_others(tiny_net):
    archs = timed.similar_architectures(tiny_net.space, 9)
    assert archs.shape == (9, len(tiny_net.space.genes)) and archs.dtype == np.int32
    np.testing.assert_array_equal(archs, tiny_net.space.canonical(archs))
    assert len(np.unique(archs, axis=0)) == 9
