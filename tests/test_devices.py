"""Several devices, of one process or of two joined on loopback, measure what one device measures."""

import csv
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from nasjax.cli import main

SCRIPT = Path(__file__).parent / "several_devices.py"


def started(cache, *arguments):
    """`several_devices.py` in a process of its own."""
    environment = {**os.environ, "NASJAX_TEST_CACHE": str(cache)}
    return subprocess.Popen(
        [sys.executable, SCRIPT, *arguments], env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def answer(process):
    out, error = process.communicate()
    assert process.returncode == 0, error
    return json.loads(out.splitlines()[-1])  # What joins processes prints before it.


def check_ways(ways):
    """What many devices found is what one did, but for rounding; networks do not depend on those measured with them."""
    for many, one in ways.values():
        for found, wanted in zip(many["found"], one["found"], strict=True):
            assert found["accuracy_top1"] == wanted["accuracy_top1"]
            for name, values in found.items():
                np.testing.assert_allclose(values, wanted[name], rtol=1e-6, atol=1e-6)
        alone, other, _, all_, turned = many["found"]
        assert len(set(all_["loss"])) == 5
        for name, values in all_.items():
            assert values[0] == alone[name][0] and values[2] == other[name][0] and values == turned[name][::-1]
        for a, b in zip(many["statistics"], one["statistics"], strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)


@pytest.mark.slow
def test_four_devices_measure_what_one_does(request):
    found = answer(started(request.config.cache.mkdir("jax"), "masked"))
    assert (found["processes"], found["devices"]) == (1, 4)
    check_ways(found["ways"])


@pytest.mark.slow
def test_four_devices_measure_branch_by_branch_what_one_does(request):
    check_ways(answer(started(request.config.cache.mkdir("jax"), "switch"))["ways"])


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.mark.slow
@pytest.mark.parametrize("way", ["masked", "switch"])
def test_two_processes_measure_what_one_device_does(request, way):
    """Two devices in each; both processes get the same."""
    address = f"127.0.0.1:{free_port()}"
    both = [started(request.config.cache.mkdir("jax"), way, address, "2", str(i)) for i in range(2)]
    first, second = map(answer, both)
    assert first == second and (first["processes"], first["devices"]) == (2, 4)
    check_ways(first["ways"])


@pytest.mark.slow
def test_a_search_over_two_processes_is_that_of_one(request, tmp_path):
    """The first writes, the other only measures; halving shares what re-calibration found in both."""
    words = ["supernet=digits", "task=digits", "tactic=random", "evaluations=10", "evaluator.chunk=5"]
    words += ["evaluator.first_examples=200", "objectives=[accuracy_top1,macs]"]
    cache = {"JAX_COMPILATION_CACHE_DIR": str(request.config.cache.mkdir("jax")), "JAX_PLATFORMS": "cpu"}
    environment = {**os.environ, **cache, "XLA_FLAGS": ""}

    def search(*own):
        command = [sys.executable, "-m", "nasjax", "search", *words, *own]
        return subprocess.Popen(command, cwd=tmp_path, env=environment, text=True, stderr=subprocess.PIPE)

    joined = f"distributed=[127.0.0.1:{free_port()},2,"
    runs = [search("run=two", f"{joined}0]"), search("run=other", f"{joined}1]"), search("run=one")]
    for run in runs:
        error = run.communicate()[1]
        assert run.returncode == 0, error
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two"]
    tables = [list(csv.DictReader((tmp_path / name / "evaluations.csv").open())) for name in ("one", "two")]
    assert len(tables[0]) == 10
    for one, two in zip(*tables, strict=True):
        assert {key: value for key, value in one.items() if not _measured(key)} == {
            key: value for key, value in two.items() if not _measured(key)
        }
        for key in filter(_measured, one):
            if key != "seconds":
                assert float(one[key]) == pytest.approx(float(two[key]), rel=1e-5), key


@pytest.mark.slow
def test_processes_that_differ_are_told_so(tmp_path):
    words = ["supernet=digits", "task=digits", "tactic=random", "evaluations=4", "objectives=[accuracy_top1,macs]"]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
    joined = f"distributed=[127.0.0.1:{free_port()},2,"

    def search(i):
        own = [f"run=run{i}", f"evaluator.chunk={4 + i}", f"{joined}{i}]"]
        command = [sys.executable, "-m", "nasjax", "search", *words, *own]
        return subprocess.Popen(command, cwd=tmp_path, env=environment, text=True, stderr=subprocess.PIPE)

    runs = [search(0), search(1)]
    for run in runs:
        assert "the processes differ in settings, data or weights" in run.communicate()[1]
        assert run.returncode == 2
    assert list(tmp_path.iterdir()) == []


def _measured(column):
    return column == "seconds" or column.startswith(("accuracy", "loss"))


def test_what_does_not_say_which_process_this_is_is_refused(capsys):
    for words in ("[]", "[10.0.0.1:1234,two,0]"):
        assert main(["search", "supernet=digits", "task=digits", f"distributed={words}"]) == 2
        assert "must be [auto] or [HOST:PORT,NUMBER,INDEX]" in capsys.readouterr().err
    assert main(["search", "-m", "distributed=[auto]", "seed=0,1"]) == 2
    assert "distributed= cannot be given with -m" in capsys.readouterr().err
