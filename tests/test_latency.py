"""One measurement: when it ends, what it says, what it is made of. No clock of the machine is read."""

import os
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from scipy.stats import binom

from nasjax.extract import extract
from nasjax.hardware.latency import Precision, Program, certain, compiled, measure_latency, median_interval, timed
from nasjax.hardware.pace import Look, Pace

NEVER = -1.0
"""A precision that no median has: all of the time is taken."""


class Clock:
    """Seconds that pass only when `run` is called, by what it is told each run takes."""

    def __init__(self, durations):
        self.now, self.runs = 0.0, 0
        self._durations = durations

    def __call__(self):
        return self.now

    def run(self):
        self.now += self._durations(self.runs)
        self.runs += 1


@pytest.mark.parametrize("number", [6, 7, 25, 100])
def test_the_interval_of_a_median_is_the_narrowest_pair_of_ranks_that_covers_enough(number):
    low, high = median_interval(np.random.default_rng(0).permutation(number).astype(float) + 1)

    def covers(rank):
        """The chance that the median is between the `rank`-th smallest and the `rank`-th largest."""
        return sum(binom.pmf(k, number, 0.5) for k in range(rank, number - rank + 1))

    assert low + high == number + 1
    assert covers(int(low)) >= 0.95 > covers(int(low) + 1)


def test_fewer_than_six_times_say_nothing():
    assert median_interval(np.ones(5)) == (-np.inf, np.inf)
    assert not certain(np.ones(5), 0.5) and certain(np.ones(6), 0.0) and not certain(np.zeros(0), 0.5)


def test_the_interval_covers_the_median_of_a_skewed_distribution_as_often_as_it_says():
    draws = np.random.default_rng(1).lognormal(size=(2000, 31))
    inside = [low <= 1.0 <= high for low, high in map(median_interval, draws)]
    assert 0.94 <= np.mean(inside) <= 0.985


def test_a_steady_machine_is_believed_after_the_least_time():
    clock = Clock(lambda _: 0.01)
    times = timed(clock.run, clock, Precision(least=0.1, warm=0.05, seconds=10)).times
    np.testing.assert_allclose(times, 10)
    assert 6 <= len(times) <= 13 and clock.runs - len(times) == 5


def test_a_slow_network_is_run_six_times_and_not_for_ever():
    clock = Clock(lambda _: 1.0)
    assert 6 <= len(timed(clock.run, clock, Precision(seconds=60)).times) <= 8
    clock = Clock(lambda _: 1.0)
    assert len(timed(clock.run, clock, Precision(seconds=3)).times) == 3


def test_the_first_runs_do_not_count():
    clock = Clock(lambda i: 5.0 if i == 0 else 0.001)
    assert timed(clock.run, clock).times.max() == pytest.approx(1)


def test_noise_is_repeated_until_the_median_is_certain_or_the_time_is_up():
    def noisy(spread):
        draws = np.random.default_rng(0).lognormal(np.log(0.01), spread, 100_000)
        return Clock(lambda i: draws[i])

    little, much = noisy(0.05), noisy(0.2)
    few, many = (timed(clock.run, clock, Precision(seconds=60)).counted for clock in (little, much))
    assert certain(few, 0.02) and certain(many, 0.02) and len(many) > 2 * len(few)
    assert np.median(many) == pytest.approx(10, rel=0.04)
    hopeless = noisy(2.0)
    assert not certain(timed(hopeless.run, hopeless, Precision(seconds=2)).times, 0.02)


class Neighbour:
    """A machine whose one processor somebody slows by turns: runs take 10 ms or 18 ms, the little work 1 us or 1.7 us."""

    def __init__(self, slowed):
        self.now, self.begun, self._slowed = 0.0, 0, slowed

    def __call__(self):
        return self.now

    def run(self):
        slowed = self._slowed(self.now)
        self.now += 0.018 if slowed else 0.010

    def pace(self):
        """A pace that takes its seconds from this machine's state; it learns at first what the quickest is."""
        pace = Pace(self)
        pace._by_processor = lambda: {0: 1.7e-6 if self._slowed(self.now) else 1e-6}
        return pace


def test_repeats_while_a_processor_was_slowed_do_not_count():
    """Slowed for three seconds of four: the median of all is the neighbour's, that of what counts the network's."""
    machine = Neighbour(lambda now: now % 4 > 1)
    found = measure_latency(Program(machine.run, 0, 0.0), machine, batch=1, threads=1, device="abacus",
                            precision=Precision(within=NEVER, seconds=8), pace=machine.pace())  # fmt: skip
    assert found.median == pytest.approx(10) and found.spread < 1e-9
    assert 0.5 * found.repeats < found.slowed < found.repeats - 100
    alone = timed(machine.run, machine, Precision(within=NEVER, seconds=8))
    assert np.median(alone.times) == pytest.approx(18) and alone.counts.all()


def test_one_slowed_from_the_first_repeat_on_is_found_out_when_a_quicker_one_comes():
    machine = Neighbour(lambda now: now < 1)
    found = timed(machine.run, machine, Precision(within=NEVER, seconds=2, warm=0), pace=machine.pace())
    np.testing.assert_allclose(found.counted, 10)
    assert 50 <= len(found.counted) < len(found.times)


def test_a_state_that_lasts_for_many_repeats_is_no_certainty():
    """By turns of 50 ms repeats take a tenth more, 5 % from the middle: what is called certain is half as far from it."""

    def found(seed):
        rng = np.random.default_rng(seed)
        turns = np.repeat(rng.random(4000) < 0.5, 1 + rng.geometric(1 / 100, 4000))
        clock = Clock(lambda i: 5e-4 * (1.1 if turns[i] else 1.0) * (1 + 0.05 * rng.normal()))
        return timed(clock.run, clock, Precision())

    medians = np.array([np.median(one.counted) for one in map(found, range(20)) if certain(one.counted, 0.02)])
    assert len(medians) >= 10 and np.sqrt(np.mean((medians / 0.525 - 1) ** 2)) < 0.025


def test_where_all_is_slowed_all_counts_and_nothing_has_settled():
    machine = Neighbour(lambda now: True)
    pace = machine.pace()
    pace._quickest = {0: 1e-6}
    found = measure_latency(Program(machine.run, 0, 0.0), machine, batch=1, threads=1, device="abacus",
                            precision=Precision(seconds=9), pace=pace)  # fmt: skip
    assert found.median == pytest.approx(18) and not found.settled and found.slowed == found.repeats
    assert 3 <= machine.now < 4.5  # Full speed is waited for, but not all of the time.


def judged(at, others, speeds):
    """What is judged of looks, a row of `speeds` each, where each processor takes 1 s at its quickest."""
    pace = Pace(lambda: 0.0)
    pace._quickest = dict.fromkeys(range(len(speeds[0])), 1.0)
    looks = [Look(*row, dict(enumerate(speed))) for *row, speed in zip(at, others, speeds, strict=True)]
    return pace.undisturbed(looks)


def test_one_slow_processor_of_two_disturbs():
    speeds = [[1.1, 1.1], [1.1, 1.0], [1.0, 1.2], [1.0, 1.0], [1.0, 1.0], [1.2, 1.0]]
    assert judged(range(6), np.zeros(6), speeds).tolist() == [True, False, False, True, False]


def test_one_slow_processor_of_many_does_not_disturb():
    speeds = np.ones((3, 32))
    speeds[0, :3], speeds[2, :4] = 2, 2
    assert judged(range(3), np.zeros(3), speeds).tolist() == [True, False]


def test_processors_that_are_taken_away_or_given_are_judged_while_they_are_there():
    pace = Pace(lambda: 0.0)
    pace._quickest = {0: 1.0, 1: 2.0}
    work = [{0: 1.0}, {0: 1.1, 1: 2.2}, {1: 2.0}, {1: 3.0}]
    assert pace.undisturbed([Look(i, 0.0, row) for i, row in enumerate(work)]).tolist() == [True, True, False]


def test_what_others_take_disturbs_while_they_take_it():
    """Others take half of one processor from the second to the fourth second, in whole hundredths as Linux counts."""
    at = np.arange(0, 6, 0.002)
    others = np.floor(100 * 0.5 * np.clip(at - 2, 0, 2)) / 100
    found = judged(at, others, np.ones((len(at), 1)))
    middle = (at[:-1] + at[1:]) / 2
    assert found[(middle < 1.9) | (middle > 4.1)].all() and not found[(middle > 2.1) & (middle < 3.9)].any()


@pytest.mark.skipif(not Path("/proc/stat").is_file(), reason="only Linux counts what others take")
def test_a_process_that_shares_its_processor_knows_what_others_take():
    program = """if True:
        import os, subprocess, sys, time
        from nasjax.hardware.pace import _others
        one = min(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {one})
        other = subprocess.Popen([sys.executable, "-c", "while True: pass"])
        before = _others()
        while time.process_time() < 1:
            pass
        print(_others() - before)
        other.kill()
    """
    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert float(printed) > 0.1


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="only Linux lets a thread choose its processors")
def test_looking_at_the_pace_leaves_the_processors_as_they_were():
    before = os.sched_getaffinity(0)
    pace = Pace(time.perf_counter)
    assert pace.look().work.keys() == before
    assert os.sched_getaffinity(0) == before

    def interrupted():
        raise KeyboardInterrupt

    pace._seconds = interrupted
    with pytest.raises(KeyboardInterrupt):
        pace.look()
    assert os.sched_getaffinity(0) == before


def test_a_measurement_says_what_it_was_made_with():
    clock = Clock(lambda i: 0.002 + 0.001 * (i % 4))
    found = measure_latency(Program(clock.run, 10, 20.0), clock, batch=8, threads=2, device="abacus",
                            precision=Precision(within=NEVER, seconds=1))  # fmt: skip
    assert found.median == pytest.approx(3.5, abs=0.51) and found.spread == pytest.approx(1.5, abs=0.51)
    assert (found.batch, found.threads, found.device, found.memory, found.flops) == (8, 2, "abacus", 10, 20.0)
    assert found.versions["jax"] == jax.__version__ and not found.settled and found.repeats > 100


def test_the_program_of_a_network_is_timed_from_its_shapes_alone(tiny_net):
    from flax import nnx

    small, large = (
        compiled(nnx.eval_shape(lambda net=net: net), net.inputs(2), jax.devices()[0])
        for net in (
            extract(tiny_net, tuple(map(int, arch))) for arch in (tiny_net.space.smallest(), tiny_net.space.largest())
        )
    )
    assert large.flops > 2 * small.flops > 0 and large.memory > small.memory > 2 * 7 * 7 * 3 * 4
    assert large.run().shape == (2, 3)
    assert np.isfinite(large.run()).all()


def test_a_super_network_is_not_timed(tiny_net):
    with pytest.raises(ValueError, match="only an extracted network"):
        compiled(tiny_net, tiny_net.inputs(1), jax.devices()[0])
