"""The worker process that times networks: it ends with its parent, ignores Ctrl-C, and never mixes up its replies."""

import os
import pickle
import select
import signal
import subprocess
import sys

import jax
import pytest
from tiny import tiny_network

from nasjax.hardware.devices import LocalDevice, TimingError, WorkerDevice, worker_environment
from nasjax.hardware.latency_table import extracted
from nasjax.hardware.measurement import Precision

PARENT = """
import subprocess, sys
words = [sys.executable, "-m", "nasjax.hardware.worker", "1"]
worker = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
worker.stdin.write(open(sys.argv[1], "rb").read())
worker.stdin.flush()
assert worker.stdout.read(1)
print(worker.pid, flush=True)
sys.stdin.read()
"""
"""Starts a worker, sends it all requests of a file, waits for the first reply, prints the worker's id and runs on."""

PATIENCE = 60.0
"""Seconds after which something that should have happened counts as missing."""


@pytest.fixture
def keyboard_interrupt():
    """Makes SIGINT raise KeyboardInterrupt: in processes that a script starts in the background it is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs Linux, to wait for a process that is not a child")
def test_a_worker_ends_during_a_measurement_when_its_parent_is_killed(tmp_path):
    net = tiny_network()
    network = extracted(net, tuple(map(int, net.space.smallest())))
    ten_minutes = Precision(within=0.0, seconds=600.0)
    requests = [(network, network.inputs(1), precision) for precision in (Precision(seconds=0.01, warm=0), ten_minutes)]
    file = tmp_path / "requests"
    file.write_bytes(b"".join(map(pickle.dumps, requests)))
    words = [sys.executable, "-c", PARENT, str(file)]
    environment = os.environ | worker_environment(1)
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as parent:
        assert parent.stdout is not None
        line = parent.stdout.readline()  # From now on the worker measures the second request, which is in its pipe.
        worker = os.pidfd_open(int(line))
        try:
            assert not ends_within(worker, 0)
            parent.send_signal(signal.SIGKILL)
            assert ends_within(worker, PATIENCE)
        finally:
            if not ends_within(worker, 0):
                signal.pidfd_send_signal(worker, signal.SIGKILL)
            os.close(worker)


def test_the_worker_ignores_ctrl_c(tmp_path):
    net = tiny_network()
    network = extracted(net, tuple(map(int, net.space.smallest())))
    words = [sys.executable, "-m", "nasjax.hardware.worker", "1"]
    piped = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(words, **piped, env=os.environ | worker_environment(1)) as worker:
        for _ in range(2):
            worker.stdin.write(pickle.dumps((network, network.inputs(1), Precision(seconds=0.01, warm=0))))
            worker.stdin.flush()
            assert pickle.load(worker.stdout).median > 0
            worker.send_signal(signal.SIGINT)
        _, errors = worker.communicate(timeout=PATIENCE)
    assert b"KeyboardInterrupt" not in errors


@pytest.mark.slow
def test_after_ctrl_c_the_next_request_gets_its_own_reply(monkeypatch, keyboard_interrupt):
    """Ctrl-C while the largest network is timed: the smallest, requested next, has its own latency."""
    net = tiny_network()
    small, large = (extracted(net, tuple(map(int, arch))) for arch in (net.space.smallest(), net.space.largest()))
    device = WorkerDevice(1, Precision(seconds=0.01, warm=0))
    flops = [device(network, network.inputs(1)).flops for network in (small, large)]
    with monkeypatch.context() as patch:
        patch.setattr(pickle, "load", lambda _: signal.raise_signal(signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            device(large, large.inputs(1))
    assert device(small, small.inputs(1)).flops == flops[0] != flops[1]
    device.close()


@pytest.mark.slow
def test_an_error_that_is_not_a_wrong_setting_is_raised_as_an_internal_error():
    device = WorkerDevice(1, Precision(seconds=0.01, warm=0))
    network = extracted(tiny_network(), tuple(map(int, tiny_network().space.smallest())))
    with pytest.raises(RuntimeError, match="the worker process that times networks failed: "):
        device(network, jax.ShapeDtypeStruct((1, 5, 5), float))
    device.close()


def ends_within(process, seconds):
    """Whether a process, given by a file descriptor, ends within so many seconds."""
    poll = select.poll()
    poll.register(process, select.POLLIN)
    return bool(poll.poll(1000 * seconds))


def test_a_network_that_does_not_fit_into_memory_fails_alone(monkeypatch):
    def out_of_memory(*_):
        raise MemoryError

    net = tiny_network()
    monkeypatch.setattr("nasjax.hardware.devices.compiled", out_of_memory)
    device = LocalDevice(jax.devices()[0], "abacus", 1, Precision())
    with pytest.raises(TimingError, match=r"hardware\.batch=3 does not fit into the memory of abacus"):
        device(net, net.inputs(3))
