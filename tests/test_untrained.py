"""Searches on untrained weights say so, and no others do."""

import logging
import sys
from html import escape
from pathlib import Path

import pytest
from flax import nnx
from tiny import tiny_network

from nasjax import supernets, tasks
from nasjax.cli import main
from nasjax.deploy.from_run import restore
from nasjax.runs.folder import read_settings
from nasjax.searches.problem import search_problem
from nasjax.supernets import untrained_warning

OWN = """
import jax.numpy as jnp
from flax import nnx

from nasjax.space import Gene
from nasjax.supernets import Stage, SuperNet
from nasjax.supernets.elastic import Dense

class Sum(Stage):
    def __init__(self, rngs, loaded):
        self.genes = (Gene("width", (2, 3)),)
        self.classify = Dense(1, 10, rngs=rngs)
        if loaded:
            self.classify.kernel[...] = jnp.arange(10.0)[None]

    def forward(self, carry, choice, statistics):
        return self.classify(carry.sum((1, 2))), {}

class Net(SuperNet):
    def __init__(self, rngs, loaded=False):
        super().__init__([Sum(rngs, loaded)], (8, 8, 1))
"""

WARNING = (
    "supernet=own_net:Net has untrained weights: load trained ones by supernet.checkpoint=FILE; until then its metrics are "
    "those of chance (supernet.untrained=true: this is meant)"
)


@pytest.fixture
def own_net(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    Path("own_net.py").write_text(OWN)
    yield
    sys.modules.pop("own_net", None)


def test_weights_as_they_were_initialised_are_untrained():
    net = supernets.create("digits", checkpoint=None)
    assert untrained_warning(net) == WARNING.replace("own_net:Net", "digits")
    assert untrained_warning(nnx.clone(net)) == untrained_warning(net)


def test_weights_that_were_loaded_or_set_or_are_meant_are_not_warned_of(tmp_path):
    trained = supernets.create("digits")
    supernets.save_weights(trained, tmp_path / "weights", {})
    changed = supernets.create("digits", checkpoint=None)
    nnx.update(changed, nnx.state(trained))
    for net in (
        trained,
        supernets.create("digits", checkpoint=str(tmp_path / "weights")),
        changed,
        supernets.create("digits", checkpoint=None, untrained=True),
        tiny_network(),
    ):
        assert untrained_warning(net) is None


def test_a_new_classifier_is_untrained():
    net = supernets.create("digits", classes=7, new_classifier=True)
    assert "supernet=digits has an untrained classifier (supernet.new_classifier=true): train it" in untrained_warning(net)
    assert untrained_warning(supernets.create("digits", classes=7, new_classifier=True, untrained=True)) is None
    net.stages[-1].classify.bias[...] += 1
    assert untrained_warning(net) is None


def test_a_class_of_the_users_that_loads_its_weights_itself_is_not_warned_of(own_net):
    assert untrained_warning(supernets.create("own_net:Net")) == WARNING
    assert untrained_warning(supernets.create("own_net:Net", arguments={"loaded": True})) is None


def test_weights_cannot_be_both_loaded_and_untrained(capsys):
    assert main(["search", "supernet.untrained=true"]) == 2
    assert capsys.readouterr().err == (
        "nasjax: supernet.untrained=true, but supernet.checkpoint=shipped: leave one out (checkpoint=null)\n"
    )


def test_a_search_its_page_an_evaluation_and_an_extraction_say_that_weights_are_untrained(own_net, caplog):
    def said(act):
        caplog.clear()
        act()
        return [record.getMessage() for record in caplog.records]

    words = ["search", "supernet=own_net:Net", "tactic=random", "evaluations=2", "run=run"]
    with caplog.at_level(logging.WARNING):
        assert said(lambda: main(words)) == [WARNING]
        assert said(lambda: main(["evaluate", "run=run"])) == [WARNING]
        assert said(lambda: restore(read_settings(Path("run")), Path("run"))) == [WARNING]
    assert escape(WARNING) in Path("run/report.html").read_text()


def test_costs_do_not_depend_on_weights(own_net):
    problem = search_problem(supernets.create("own_net:Net"), tasks.create("digits"))
    assert problem.warning(["macs", "params"]) is None
    assert problem.warning(["macs", "loss"]) == WARNING
