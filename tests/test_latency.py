"""One measurement: when it ends, what it reports, which repeats count. No test reads a real clock."""

import os
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from scipy.stats import binom

from nasjax.hardware.measurement import (
    Precision,
    Program,
    compiled,
    is_precise,
    measure_latency,
    median_interval,
    time_repeats,
)
from nasjax.hardware.pace import Pace, PaceSample, undisturbed
from nasjax.supernets.extract import extract

NEVER = -1.0
"""A precision that no median reaches: a measurement uses all of its seconds."""


class Clock:
    """A clock that advances only when `run` is called, by the given duration of each run."""

    def __init__(self, durations):
        self.now, self.runs = 0.0, 0
        self._durations = durations

    def __call__(self):
        return self.now

    def run(self):
        self.now += self._durations(self.runs)
        self.runs += 1


@pytest.mark.parametrize("number", [6, 7, 25, 100])
def test_the_interval_of_a_median_is_the_narrowest_pair_of_ranks_with_enough_coverage(number):
    low, high = median_interval(np.random.default_rng(0).permutation(number).astype(float) + 1)

    def covers(rank):
        """The chance that the median is between the `rank`-th smallest and the `rank`-th largest."""
        return sum(binom.pmf(k, number, 0.5) for k in range(rank, number - rank + 1))

    assert low + high == number + 1
    assert covers(int(low)) >= 0.95 > covers(int(low) + 1)


def test_fewer_than_six_repeats_have_no_interval():
    assert median_interval(np.ones(5)) == (-np.inf, np.inf)
    assert not is_precise(np.ones(5), 0.5) and is_precise(np.ones(6), 0.0) and not is_precise(np.zeros(0), 0.5)


def test_the_interval_covers_the_median_of_a_skewed_distribution_with_its_stated_probability():
    draws = np.random.default_rng(1).lognormal(size=(2000, 31))
    inside = [low <= 1.0 <= high for low, high in map(median_interval, draws)]
    assert 0.94 <= np.mean(inside) <= 0.985


def test_on_a_steady_machine_a_measurement_ends_after_its_minimum_time():
    clock = Clock(lambda _: 0.01)
    times = time_repeats(clock.run, clock, Precision(least=0.1, warm=0.05, seconds=10)).times
    np.testing.assert_allclose(times, 10)
    assert 6 <= len(times) <= 13 and clock.runs - len(times) == 5


def test_a_slow_network_is_repeated_six_times_but_within_its_seconds():
    clock = Clock(lambda _: 1.0)
    assert 6 <= len(time_repeats(clock.run, clock, Precision(seconds=60)).times) <= 8
    clock = Clock(lambda _: 1.0)
    assert len(time_repeats(clock.run, clock, Precision(seconds=3)).times) == 3


def test_the_first_runs_do_not_count():
    clock = Clock(lambda i: 5.0 if i == 0 else 0.001)
    assert time_repeats(clock.run, clock).times.max() == pytest.approx(1)


def test_noisy_runs_are_repeated_until_the_median_is_certain_or_the_seconds_are_over():
    def noisy(spread):
        draws = np.random.default_rng(0).lognormal(np.log(0.01), spread, 100_000)
        return Clock(lambda i: draws[i])

    little, much = noisy(0.05), noisy(0.2)
    few, many = (time_repeats(clock.run, clock, Precision(seconds=60)).times for clock in (little, much))
    assert is_precise(few, 0.02) and is_precise(many, 0.02) and len(many) > 2 * len(few)
    assert np.median(many) == pytest.approx(10, rel=0.04)
    hopeless = noisy(2.0)
    assert not is_precise(time_repeats(hopeless.run, hopeless, Precision(seconds=2)).times, 0.02)


class Neighbour:
    """A machine whose only processor is slowed at times: runs take 10 ms or 17 ms, the pace workload 1 us or 1.7 us.

    `takes` is the share of the processor that another program has while it is slowed.
    """

    def __init__(self, slowed, takes=0.0):
        self.now, self.taken, self._slowed, self._takes = 0.0, 0.0, slowed, takes

    def __call__(self):
        return self.now

    def run(self):
        slowed = self._slowed(self.now)
        took = 0.017 if slowed else 0.010
        self.now += took
        self.taken += self._takes * took if slowed else 0

    def sample(self):
        """Replaces `Pace.sample`, with the state of this machine."""
        return PaceSample(self.now, self.taken, 1.7e-6 if self._slowed(self.now) else 1e-6)

    def measured(self, **precision):
        return measure_latency(Program(self.run, 0, 0.0), self, batch=1, threads=1, device="abacus",
                               precision=Precision(**precision), pace=self)  # fmt: skip


@pytest.mark.parametrize(("turn", "usual"), [(3, 17), (1, 10)])
def test_repeats_are_scaled_to_their_median_pace(turn, usual):
    """Slowed for `turn` seconds of four: unscaled repeats vary by 70 %, scaled ones do not."""
    machine = Neighbour(lambda now: now % 4 < turn)
    found = machine.measured(within=NEVER, seconds=8)
    assert found.median == pytest.approx(usual) and found.spread < 1e-9 and found.shared == 0
    assert found.work == pytest.approx(usual * 1e-4)
    as_it_was = time_repeats(machine.run, machine, Precision(within=NEVER, seconds=8)).times
    assert np.subtract(*np.quantile(as_it_was, (0.75, 0.25))) == pytest.approx(7 if turn == 3 else 0) or turn == 1


def test_a_latency_can_be_scaled_to_another_pace():
    slow, quick = (Neighbour(lambda now, slowed=slowed: slowed).measured() for slowed in (True, False))
    assert slow.median == pytest.approx(17) and quick.median == pytest.approx(10)
    there = slow.at(quick.work)
    assert there.median == pytest.approx(quick.median) and there.work == quick.work and there.repeats == slow.repeats


def test_repeats_while_others_use_the_processor_do_not_count():
    """Another program uses half of it for three seconds of four; the workload runs between its time slices."""
    machine = Neighbour(lambda now: now % 4 > 1, takes=0.5)
    found = machine.measured(within=NEVER, seconds=8)
    assert found.median == pytest.approx(10) and found.spread < 1e-9
    assert 0.5 * found.repeats < found.shared < found.repeats - 100


def test_repeats_that_are_correlated_do_not_look_certain():
    """For 50 ms at a time repeats take a tenth longer, 5 % off the middle: medians called certain are within 2.5 %."""

    def found(seed):
        rng = np.random.default_rng(seed)
        turns = np.repeat(rng.random(4000) < 0.5, 1 + rng.geometric(1 / 100, 4000))
        clock = Clock(lambda i: 5e-4 * (1.1 if turns[i] else 1.0) * (1 + 0.05 * rng.normal()))
        return time_repeats(clock.run, clock, Precision())

    medians = np.array([np.median(one.times) for one in map(found, range(20)) if is_precise(one.times, 0.02)])
    assert len(medians) >= 10 and np.sqrt(np.mean((medians / 0.525 - 1) ** 2)) < 0.025


def test_if_others_stay_all_repeats_count_and_the_measurement_has_not_settled():
    machine = Neighbour(lambda now: True, takes=0.5)
    found = machine.measured(seconds=9)
    assert found.median == pytest.approx(17) and not found.settled and found.shared == found.repeats
    assert 3 <= machine.now < 4.5  # It waits for them, but only for a part of its seconds.


def test_repeats_are_disturbed_exactly_while_others_use_the_processors():
    """Others use half of the processors from second 2 to 4, counted in whole hundredths as Linux does."""
    at = np.arange(0, 6, 0.002)
    others = np.floor(100 * 0.5 * np.clip(at - 2, 0, 2)) / 100
    found = undisturbed([PaceSample(*row, 1.0) for row in zip(at, others, strict=True)])
    middle = (at[:-1] + at[1:]) / 2
    assert found[(middle < 1.9) | (middle > 4.1)].all() and not found[(middle > 2.1) & (middle < 3.9)].any()


@pytest.mark.skipif(not Path("/proc/stat").is_file(), reason="only Linux counts processor time of others")
def test_processor_time_of_another_process_on_the_same_processor_is_seen():
    program = """if True:
        import os, subprocess, sys, time
        from nasjax.hardware.pace import _others_seconds
        one = min(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {one})
        other = subprocess.Popen([sys.executable, "-c", "while True: pass"])
        before = _others_seconds()
        while time.process_time() < 1:
            pass
        print(_others_seconds() - before)
        other.kill()
    """
    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert float(printed) > 0.1


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="only Linux lets a thread choose its processors")
def test_sampling_the_pace_restores_the_allowed_processors():
    before = os.sched_getaffinity(0)
    where = []
    pace = Pace(time.perf_counter)
    pace._work_seconds = lambda: where.append(os.sched_getaffinity(0)) or float(len(where))
    assert pace.sample().work == (1 + len(before)) / 2
    assert where == [{one} for one in sorted(before)] and os.sched_getaffinity(0) == before

    def interrupted():
        raise KeyboardInterrupt

    pace._work_seconds = interrupted
    with pytest.raises(KeyboardInterrupt):
        pace.sample()
    assert os.sched_getaffinity(0) == before


def test_a_latency_reports_how_it_was_measured():
    clock = Clock(lambda i: 0.002 + 0.001 * (i % 4))
    found = measure_latency(Program(clock.run, 10, 20.0), clock, batch=8, threads=2, device="abacus",
                            precision=Precision(within=NEVER, seconds=1))  # fmt: skip
    assert found.median == pytest.approx(3.5, abs=0.51) and found.spread == pytest.approx(1.5, abs=0.51)
    assert (found.batch, found.threads, found.device, found.memory, found.flops) == (8, 2, "abacus", 10, 20.0)
    assert found.versions["jax"] == jax.__version__ and not found.settled and found.repeats > 100


def test_a_network_is_compiled_and_run_from_its_shapes_alone(tiny_net):
    from flax import nnx

    small, large = (
        compiled(nnx.eval_shape(lambda net=net: net), net.inputs(2), jax.devices()[0])
        for net in (
            extract(tiny_net, tuple(map(int, arch))) for arch in (tiny_net.space.smallest(), tiny_net.space.largest())
        )
    )
    assert large.flops > 2 * small.flops > 0 and large.memory > small.memory > 2 * 7 * 7 * 3 * 4
    (logits,) = large.run()
    assert logits.shape == (2, 3)
    assert np.isfinite(large.run()).all()


def test_timing_a_super_network_is_refused(tiny_net):
    with pytest.raises(ValueError, match="only an extracted network"):
        compiled(tiny_net, tiny_net.inputs(1), jax.devices()[0])
