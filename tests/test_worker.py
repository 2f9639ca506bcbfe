"""The process that times networks ends with whoever started it."""

import os
import pickle
import select
import signal
import subprocess
import sys

import jax
import pytest
from tiny import tiny_network

from nasjax.hardware.devices import Failed, Here, Process, environment
from nasjax.hardware.latency_table import extracted
from nasjax.hardware.measurement import Precision

HOLDER = """
import subprocess, sys
words = [sys.executable, "-m", "nasjax.hardware.worker", "1"]
worker = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
worker.stdin.write(open(sys.argv[1], "rb").read())
worker.stdin.flush()
assert worker.stdout.read(1)
print(worker.pid, flush=True)
sys.stdin.read()
"""
"""A parent: asks for all that a file holds, waits for the first answer, says who measures, and stays until it is killed."""

PATIENCE = 60.0
"""Seconds after which something that should have happened has not."""


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs Linux, to wait for a process that is nobody's child")
def test_a_killed_parent_s_worker_ends_in_the_middle_of_a_measurement(tmp_path):
    net = tiny_network()
    network = extracted(net, tuple(map(int, net.space.smallest())))
    ten_minutes = Precision(within=0.0, seconds=600.0)
    requests = [(network, network.inputs(1), precision) for precision in (Precision(seconds=0.01, warm=0), ten_minutes)]
    file = tmp_path / "requests"
    file.write_bytes(b"".join(map(pickle.dumps, requests)))
    words = [sys.executable, "-c", HOLDER, str(file)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=os.environ | environment(1)) as holder:
        assert holder.stdout is not None
        said = holder.stdout.readline()  # The second request is in the worker's pipe: that is what it is at.
        worker = os.pidfd_open(int(said))
        try:
            assert not ended(worker, 0)
            holder.send_signal(signal.SIGKILL)
            assert ended(worker, PATIENCE)
        finally:
            if not ended(worker, 0):
                signal.pidfd_send_signal(worker, signal.SIGKILL)
            os.close(worker)


def test_ctrl_c_is_left_to_the_parent(tmp_path):
    net = tiny_network()
    network = extracted(net, tuple(map(int, net.space.smallest())))
    words = [sys.executable, "-m", "nasjax.hardware.worker", "1"]
    piped = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(words, **piped, env=os.environ | environment(1)) as worker:
        for _ in range(2):
            worker.stdin.write(pickle.dumps((network, network.inputs(1), Precision(seconds=0.01, warm=0))))
            worker.stdin.flush()
            assert pickle.load(worker.stdout).median > 0
            worker.send_signal(signal.SIGINT)
        _, said = worker.communicate(timeout=PATIENCE)
    assert b"KeyboardInterrupt" not in said


def test_an_answer_that_was_not_waited_for_is_not_the_next_one_s(monkeypatch):
    """Ctrl-C while the largest is timed: the smallest, asked for next, has its own latency."""
    net = tiny_network()
    small, large = (extracted(net, tuple(map(int, arch))) for arch in (net.space.smallest(), net.space.largest()))
    device = Process(1, Precision(seconds=0.01, warm=0))
    flops = [device(network, network.inputs(1)).flops for network in (small, large)]
    with monkeypatch.context() as patch:
        patch.setattr(pickle, "load", lambda _: signal.raise_signal(signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            device(large, large.inputs(1))
    assert device(small, small.inputs(1)).flops == flops[0] != flops[1]
    device.close()


def ended(process, seconds):
    """Whether a process, a file descriptor of it, ends within so many seconds."""
    poll = select.poll()
    poll.register(process, select.POLLIN)
    return bool(poll.poll(1000 * seconds))


def test_a_network_that_takes_more_memory_than_there_is_is_no_matter_of_the_device(monkeypatch):
    def full(*_):
        raise MemoryError

    net = tiny_network()
    monkeypatch.setattr("nasjax.hardware.devices.compiled", full)
    device = Here(jax.devices()[0], "abacus", 1, Precision())
    with pytest.raises(Failed, match=r"hardware\.batch=3 takes more memory than abacus has"):
        device(net, net.inputs(3))
