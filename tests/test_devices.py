"""Several devices, of one process or of two joined on loopback, measure what one device measures."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

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
def test_two_processes_measure_what_one_device_does(request):
    """Two devices in each; both processes get the same."""
    address = f"127.0.0.1:{free_port()}"
    both = [started(request.config.cache.mkdir("jax"), "masked", address, "2", str(i)) for i in range(2)]
    first, second = map(answer, both)
    assert first == second and (first["processes"], first["devices"]) == (2, 4)
    check_ways(first["ways"])
