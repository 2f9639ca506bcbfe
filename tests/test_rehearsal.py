"""What a tactic's next step compiles is compiled beside the first evaluations, and nothing else changes by that."""

import logging
from threading import get_ident

import jax
import numpy as np
import pytest

import nasjax
from nasjax.evaluation import MaskedConfig
from nasjax.searches import rehearsal, steps, time_spent
from nasjax.searches.rehearsal import worthwhile

SMALL = {"name": "masked", "batch": 16, "calibration_examples": 16}


def found(net, task, seed=0, **settings):
    front = nasjax.search(net, task, evaluator=SMALL, evaluations=15, seed=seed, **settings)
    return front.evaluations


@pytest.mark.slow
@pytest.mark.parametrize("tactic", ["ehvi", "concurrent"])
def test_a_rehearsal_changes_no_evaluation(tiny_net, tiny_task, monkeypatch, tactic):
    small = {
        "ehvi": {"name": "ehvi", "generations": 5},
        "concurrent": {"name": "concurrent", "population": 5, "generations": 5},
    }
    settings = {"tactic": small[tactic], "predictor": "ridge"}
    monkeypatch.setattr(steps, "worthwhile", lambda evaluator: True)
    with_it = found(tiny_net, tiny_task, **settings)
    monkeypatch.setattr(steps, "worthwhile", lambda evaluator: False)
    without = found(tiny_net, tiny_task, **settings)
    assert with_it.keys() == without.keys()
    for name in set(with_it) - {"seconds"}:
        np.testing.assert_array_equal(with_it[name], without[name], err_msg=name)


def test_the_second_step_finds_its_programs_compiled(tiny_net, tiny_task, monkeypatch):
    """All that the tactic compiles, it compiles in the rehearsal's thread."""
    jax.clear_caches()
    asked = []

    class Watched(nasjax.tactics.Ehvi):
        def ask(self, state):
            before = time_spent._compiled()[get_ident()]
            result = super().ask(state)
            asked.append((get_ident(), len(state.archs), time_spent._compiled()[get_ident()] - before))
            return result

    monkeypatch.setattr(steps, "worthwhile", lambda evaluator: True)
    found(tiny_net, tiny_task, tactic=Watched(generations=7), predictor="ridge")
    (mine, _, _), (other, rehearsed, compiling), (again, told, left) = asked[:3]
    assert mine == again == get_ident() != other
    assert rehearsed == told == 10
    assert left < 0.1 * compiling


def test_nothing_is_rehearsed_where_no_step_follows(tiny_net, tiny_task, monkeypatch):
    def rehearse(*_):
        raise AssertionError

    monkeypatch.setattr(steps, "worthwhile", lambda evaluator: True)
    monkeypatch.setattr(steps, "rehearsed", rehearse)
    settings = {"evaluator": SMALL, "tactic": {"name": "ehvi", "start": 4}}
    assert len(nasjax.search(tiny_net, tiny_task, evaluations=4, **settings).evaluations["index"]) == 4
    with pytest.raises(AssertionError):
        nasjax.search(tiny_net, tiny_task, evaluations=5, **settings)


def test_a_rehearsal_that_fails_is_no_failure(tiny_net, tiny_task, monkeypatch, caplog):
    class Fails(nasjax.tactics.Random):
        def tell(self, state, archs, values):
            if get_ident() != main:
                raise RuntimeError("out of order")
            return super().tell(state, archs, values)

    main = get_ident()
    monkeypatch.setattr(steps, "worthwhile", lambda evaluator: True)
    with caplog.at_level(logging.DEBUG, rehearsal.LOG.name):
        assert len(found(tiny_net, tiny_task, tactic=Fails(5))["index"]) == 15
    assert "out of order" in caplog.text


def test_only_networks_that_are_not_timed_are_worth_it(tiny_net, tiny_task, monkeypatch):
    bound = MaskedConfig(batch=16, calibration_examples=16).bind(tiny_net, tiny_task)
    monkeypatch.setattr(rehearsal, "processors", lambda: 2)
    assert worthwhile(bound)
    table_or_timed = type("Measures", (), {"chunk": 1, "metrics": (), "context": {}})()
    assert not worthwhile(table_or_timed)
    monkeypatch.setattr(rehearsal, "processors", lambda: 1)
    assert not worthwhile(bound)
