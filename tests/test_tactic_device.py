"""A tactic on a device of its own: it runs there, and a search evaluates the same; other devices are refused."""

from typing import ClassVar

import jax
import pytest
from tables import GENES, write_table

import nasjax
from nasjax.errors import ConfigError
from nasjax.predictors import Ridge
from nasjax.searches import settings

SEARCH = {"objectives": ["max:acc", "min:cost"], "tactic": {"name": "ehvi", "start": 10, "batch": 10, "generations": 5},
          "evaluations": 30}  # fmt: skip


@pytest.fixture(scope="module")
def net(tmp_path_factory):
    return nasjax.supernets.create("tabular", table=write_table(tmp_path_factory.mktemp("t") / "table.csv"), genes=GENES)


class Watched(Ridge):
    """Notes the devices of the models that it fits."""

    seen: ClassVar[set] = set()

    def fit(self, *arguments):
        model = super().fit(*arguments)
        self.seen.update(*(leaf.devices() for leaf in jax.tree.leaves(model) if isinstance(leaf, jax.Array)))
        return model


def test_a_tactic_runs_on_its_device_and_asks_for_the_same(net, monkeypatch):
    """The second CPU device in the place of the CPU beside an accelerator."""
    first, second = jax.devices()[:2]
    found = {}
    for device, name in ((first, None), (second, "cpu")):
        Watched.seen.clear()
        with monkeypatch.context() as patch:
            patch.setattr(settings.jax, "local_devices", lambda backend=None, device=device: [device])
            found[name] = nasjax.search(net, **SEARCH, predictor=Watched(), tactic_device=name).evaluations
        assert Watched.seen == {device}
    alone, beside = ({**columns, "seconds": None} for columns in found.values())
    assert alone == beside


def test_a_cpu_that_jax_was_told_to_leave_out_is_one_line(net, monkeypatch):
    def absent(backend):
        raise RuntimeError(f"Unknown backend {backend}")

    with (
        monkeypatch.context() as patch,
        pytest.raises(ConfigError, match=r"JAX has no CPU here .*JAX_PLATFORMS"),
    ):
        patch.setattr(settings.jax, "local_devices", absent)
        nasjax.search(net, **SEARCH, tactic_device="cpu")


def test_only_the_cpu_is_named(net):
    with pytest.raises(ConfigError, match="tactic_device='gpu' must be cpu, or null: the device that JAX chooses"):
        nasjax.search(net, **SEARCH, tactic_device="gpu")
