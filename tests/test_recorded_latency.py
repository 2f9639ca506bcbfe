"""The experiment on recorded devices: its data match their sources, and test networks were never trained on."""

import csv
import gzip
import importlib
import json
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
DATA = ROOT.parent / "shared" / "data"

pytestmark = pytest.mark.skipif(not (DATA / "hat-latency").is_dir(), reason="needs the recorded latencies")


@pytest.fixture
def recorded(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "experiments" / "latency"))
    return importlib.import_module("recorded")


def test_a_recorded_network_matches_its_source(recorded):
    with gzip.open(DATA / "help-latency" / "ofa_archs.json.gz", "rt") as file:
        row = json.load(file)[17]
    name = "ofa_mbv3_d234_e346_k357_w1.0"
    space = recorded.supernets.abstract(name, resolutions=tuple(range(128, 225, 4))).space
    chosen = space.decode(recorded.encoded(space, row))
    assert chosen["resolution"] == row["r"]
    assert [chosen[f"depth_{stage}"] for stage in range(1, 6)] == row["d"]
    kept = [4 * stage + block for stage, depth in enumerate(row["d"]) for block in range(depth)]
    for name, values in (("kernel", row["ks"]), ("expand", row["e"])):
        assert [value for gene, value in chosen.items() if gene.startswith(name)] == [values[i] for i in kept]


def test_rows_of_hat_keep_their_milliseconds(recorded):
    inputs, archs, milliseconds = recorded.hat()
    with (DATA / "hat-latency" / "wmt14ende_cpu_xeon_all.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for i in (0, 999, 1999):
        chosen = inputs.space.decode(archs["wmt14ende_cpu_xeon"][i])
        for name, value in chosen.items():
            assert value == pytest.approx(float(rows[i][name]), abs=1e-3)
        total = float(rows[i]["latency_mean_encoder"]) + float(rows[i]["latency_mean_decoder"])
        assert milliseconds["wmt14ende_cpu_xeon"][i] == total


def test_no_model_is_trained_on_test_networks(recorded):
    archs, milliseconds = recorded.rows_of("nb201", "gold_6226", 1)
    most = recorded.SOURCE_SAMPLES + max(recorded.SAMPLES)
    tested, trained = archs[-recorded.TEST :], archs[:most]
    assert not {row.tobytes() for row in tested} & {row.tobytes() for row in trained}
    other, _ = recorded.rows_of("nb201", "raspi4", 1)
    np.testing.assert_array_equal(other, archs)
    assert len(milliseconds) == 15625


def test_results_hold_every_trial_once(recorded):
    with (ROOT / "experiments" / "latency" / "results" / "recorded.csv").open(newline="") as file:
        rows = [tuple(row[name] for name in recorded.HEADER[:-2]) for row in csv.DictReader(file)]
    planned = {tuple(map(str, trial)) for trial in recorded.trials(range(3))}
    assert len(rows) == len(set(rows)) and set(rows) == planned
