"""The scripts of experiments/ as commands: rows that are taken out of a file of results are remade as they were."""

import csv
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tactic_scripts import DATA, ROOT, needs_tables

Row = dict[str, str]

needs_latencies = pytest.mark.skipif(not (DATA / "help-latency").is_dir(), reason="needs the recorded latencies")


def rows_of(file: Path) -> list[Row]:
    csv.field_size_limit(2**30)
    with file.open(newline="") as lines:
        return list(csv.DictReader(lines))


def remade(
    script: str, stored: str, folder: Path, gone: Callable[[Row], bool], *arguments: str
) -> tuple[list[Row], list[Row]]:
    """The rows of a stored file for which `gone` is true, and those that the script adds where these are missing."""
    rows = rows_of(ROOT / "experiments" / stored)
    left = [row for row in rows if not gone(row)]
    file = folder / "results.csv"
    with file.open("w", newline="") as lines:
        writer = csv.DictWriter(lines, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(left)
    environment = os.environ | {"NASJAX_DATA": str(DATA), "NASJAX_CACHE": str(folder / "cache")}
    command = [sys.executable, str(ROOT / "experiments" / script), str(file), *arguments]
    subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    found = rows_of(file)
    assert found[: len(left)] == left
    return [row for row in rows if gone(row)], found[len(left) :]


@needs_tables
def test_a_search_measures_the_stored_networks_again(tmp_path):
    def gone(row):
        return (row["method"], row["problem"], row["seed"]) == ("random", "macro", "3")

    settings = "--methods", "random", "--problems", "macro", "--seeds", "3", "--evaluations", "1000"
    (old,), (new,) = remade("tactics/anytime.py", "tactics/results/random.csv", tmp_path, gone, *settings)
    assert new["rows"] == old["rows"]


@needs_latencies
@needs_tables
def test_true_fronts_on_other_devices_are_those_stored(tmp_path):
    def gone(row):
        return row["space"] == "nb201:imagenet16"

    old, new = remade("reoptimise/recorded.py", "reoptimise/results/recorded.csv", tmp_path, gone)
    assert new == old


@pytest.mark.slow
@needs_latencies
@needs_tables
def test_fronts_found_for_other_devices_are_hardly_better_than_a_device_s_own(tmp_path, monkeypatch):
    def gone(row):
        return (row["space"], row["seed"]) == ("ofa", "0")

    old, new = remade("reoptimise/recorded.py", "reoptimise/results/recorded.csv", tmp_path, gone)
    monkeypatch.syspath_prepend(str(ROOT / "experiments" / "reoptimise"))
    import fronts

    assert {(row["source"], row["target"]) for row in new} == {(row["source"], row["target"]) for row in old}
    pairs = {name: seeds for name, seeds in fronts.pairs(tmp_path / "results.csv").items() if name[0] == "ofa"}
    assert len(pairs) == len({row["target"] for row in old}) ** 2
    for (_, source, _), seeds in pairs.items():
        low, high = (99, 101) if source == "itself" else (70, 100.5)
        assert all(low < one.share < high for one in seeds)


@pytest.mark.slow
def test_halving_keeps_the_stored_share_of_the_front(tmp_path):
    def gone(row):
        return (row["first_examples"], row["seed"]) == ("50", "0")

    (old,), (new,) = remade("halving/halving.py", "halving/results/digits.csv", tmp_path, gone)
    for name, tolerance in {"scored": 0.02, "tau": 0.05, "hypervolume": 0.5}.items():
        assert float(new[name]) == pytest.approx(float(old[name]), abs=tolerance)


@pytest.mark.slow
@needs_latencies
def test_errors_of_a_latency_model_are_those_stored(tmp_path):
    def gone(row):
        return row == rows[0]

    rows = rows_of(ROOT / "experiments" / "latency" / "results" / "recorded.csv")
    (old,), (new,) = remade("latency/recorded.py", "latency/results/recorded.csv", tmp_path, gone)
    assert float(new["tau"]) == pytest.approx(float(old["tau"]), abs=0.02)
    assert float(new["mape"]) == pytest.approx(float(old["mape"]), rel=0.1)
