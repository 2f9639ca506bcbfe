"""NAS-Bench-Macro's complete table: the true front is known, and tactics find it."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

import nasjax
from nasjax import supernets
from nasjax.objectives import Goals
from nasjax.pareto import hypervolume_exact, non_dominated_exact

ROOT = Path(__file__).parent.parent
SOURCE = ROOT.parent / "shared" / "data" / "nas-bench-macro" / "nas-bench-macro_cifar10.json"

pytestmark = pytest.mark.skipif(not SOURCE.is_file(), reason="needs NAS-Bench-Macro")


@pytest.fixture(scope="module")
def net(tmp_path_factory):
    path = ROOT / "experiments" / "nas_bench_macro" / "convert.py"
    spec = importlib.util.spec_from_file_location("convert", path)
    converter = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(converter)
    table = tmp_path_factory.mktemp("macro") / "table.csv"
    assert converter.convert(SOURCE, table) == 6561
    return supernets.create("tabular", table=str(table), genes=converter.LAYERS)


def minimised(net):
    return net.values[:, [net.metrics.index("accuracy_top1"), net.metrics.index("macs")]] * [-1, 1]


def test_the_table_is_the_source(net):
    networks = json.loads(SOURCE.read_text())
    assert net.space.size == 6561
    for key in ("00000000", "22212220", "01201201"):
        found = net(np.array([[int(digit) for digit in key]], np.int32))
        assert found["accuracy_top1"][0] == networks[key]["mean_acc"]
        assert found["macs"][0] == networks[key]["flops"]


def test_the_true_front_has_35_points(net):
    values = minimised(net)
    assert len(np.unique(values[non_dominated_exact(values)], axis=0)) == 35


@pytest.mark.slow
def test_after_200_of_6561_networks_concurrent_search_is_near_the_true_front_and_ahead_of_random(net):
    found = {}
    for tactic in ("random", "full", "concurrent"):
        fronts = [nasjax.search(net, tactic=tactic, predictor="ridge", evaluations=200, seed=seed) for seed in range(3)]
        found[tactic] = np.median([front.hypervolume for front in fronts])
    true = hypervolume_exact(minimised(net), Goals(tuple(fronts[0].objectives)).reference)
    assert found["concurrent"] > 0.995 * true
    assert found["concurrent"] > found["full"] > found["random"]
