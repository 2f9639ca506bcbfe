"""One measurement of a network's latency: compiled ahead of time, warmed up, repeated until its median is certain.

Nothing is timed while this program itself runs other work: `timed` runs one thing after the other and waits for each. What
neighbours and other programs do shows in the processors' pace: repeats are brought to one pace, and do not count where
others had the processors. Clock, runner and pace are arguments, so that what is decided can be tested without a clock.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Bool, Float, PyTree
from scipy.stats import binom

from nasjax.errors import ConfigError
from nasjax.hardware.energy import EnergyCounter
from nasjax.hardware.pace import Pace, PaceSample, undisturbed, work_between
from nasjax.supernets.decode import decode
from nasjax.supernets.supernet import SuperNet

CERTAIN = 0.95
"""How sure the interval of a median is."""

LIBRARIES = ("jax", "jaxlib")
"""What a latency depends on beside the machine."""

WEIGHT = 0.01
"""What every weight is while a network is timed: latencies do not depend on weights, and shapes are all that is kept."""

BLOCK = 0.002
"""Seconds of repeats between two looks at the processors' pace, at the least."""

LOOKS = 5
"""How many times what a look takes they last at the least."""

FEWEST = 6
"""Repeats that a median needs to have an interval at all."""

BATCHES = 20
"""Repeats that follow one another are alike: their certainty is that of the medians of so many batches of them."""

WAITING = 1 / 3
"""The share of a measurement's time for which others are waited for; where they stay, all repeats count."""

COUNTED = 0.5
"""Seconds of repeats whose energy is counted."""


@dataclass(frozen=True)
class Precision:
    """When a measurement ends: its median within `within` of itself (a share), or after `seconds`.

    Never before `least` seconds of repeats; `warm` seconds are run before any counts.
    """

    within: float = 0.02
    seconds: float = 10.0
    least: float = 0.5
    warm: float = 0.1


@dataclass(frozen=True)
class Latency:
    """A measured latency of a batch, in milliseconds, and what it was measured with.

    `spread` is the interquartile range; `settled`: the median's 95 % interval came within the precision asked for. `shared`:
    those of the `repeats` during which others had the processors; they do not count unless nearly all are such, and then
    nothing has settled. `memory`: bytes of the compiled program's arguments, results and scratch; `flops`: XLA's count.
    `energy`: joules a batch, the mean of repeats of their own; NaN if nothing counts it.

    Median and spread are those at one pace: where the little work of `nasjax.hardware.pace` takes `work` milliseconds, as it
    did meanwhile (median); NaN where nobody looks at the pace.
    """

    median: float
    spread: float
    repeats: int
    settled: bool
    batch: int
    threads: int
    device: str
    versions: Mapping[str, str]
    memory: int
    flops: float
    energy: float = np.nan
    shared: int = 0
    work: float = np.nan

    def at(self, work: float) -> "Latency":
        """What it is at another pace, where the work takes so many milliseconds."""
        share = work / self.work
        return replace(self, median=self.median * share, spread=self.spread * share, work=work)


class Repeats(NamedTuple):
    """Milliseconds of all repeats, those that the little work took beside them (ones: unknown), and which repeats count."""

    times: Float[np.ndarray, " repeats"]
    work: Float[np.ndarray, " repeats"]
    counts: Bool[np.ndarray, " repeats"]

    @property
    def judged(self) -> Bool[np.ndarray, " repeats"]:
        """Those that count, or all where these are too few."""
        return self.counts if self.counts.sum() >= FEWEST else np.ones_like(self.counts)

    def at_one_pace(self, which: Bool[np.ndarray, " repeats"]) -> Float[np.ndarray, " some"]:
        """Milliseconds of some of them, had the processors been at the median pace of these throughout."""
        return self.times[which] * (np.median(self.work[which]) / self.work[which] if which.any() else 1.0)


class Program(NamedTuple):
    """A compiled program: `run` starts it and waits until it has ended."""

    run: Callable[[], Any]
    memory: int
    flops: float


def median_interval(times: Float[np.ndarray, " repeats"]) -> tuple[float, float]:
    """The 95 % confidence interval of the median by order statistics; infinite for fewer than six times.

    No shape of the times' distribution is assumed (David and Nagaraja, Order Statistics, 3rd edition, section 7.1).
    """
    rank = int(binom.ppf((1 - CERTAIN) / 2, len(times), 0.5)) if len(times) else 0
    if rank < 1:
        return -np.inf, np.inf
    ordered = np.sort(times)
    return float(ordered[rank - 1]), float(ordered[-rank])


def certain(times: Float[np.ndarray, " repeats"], within: float) -> bool:
    """Whether the interval of the median is within a share of the median, on both sides; of the batches' medians, if many.

    What disturbs lasts for many repeats, so that these are no independent draws (batch means: Law and Kelton, Simulation
    Modeling and Analysis, section 9.5.3).
    """
    batches = np.array([np.median(batch) for batch in np.array_split(times, min(len(times), BATCHES))] if len(times) else [])
    low, high = median_interval(batches)
    median = float(np.median(batches)) if len(batches) else np.nan
    return max(high - median, median - low) <= within * median


def timed(
    run: Callable[[], Any], clock: Callable[[], float], precision: Precision = Precision(), pace: Pace | None = None
) -> Repeats:
    """Repeats of `run`. `clock` gives seconds.

    With a `pace`, it is looked at between them, and those do not count while others took much of the processors.
    """
    began = clock()
    run()
    while clock() - began < precision.warm:
        run()
    times: list[float] = []
    looks = [] if pace is None else [pace.sample()]
    blocks: list[int] = []  # How many repeats stand between two looks at the pace.
    began, looked, block = clock(), 0, BLOCK
    while True:
        now = clock()
        before, end = len(times), min(now + block, began + precision.seconds)
        while len(times) == before or now < end:
            start = clock()
            run()
            now = clock()
            times.append(1e3 * (now - start))
        blocks.append(len(times) - before)
        if pace is not None:
            looks.append(pace.sample())
            block = max(BLOCK, LOOKS * (clock() - now))
        over = now - began >= precision.seconds
        # This costs time, but not that which counts: it is done less often the more there is to judge.
        if over or (now - began >= precision.least and len(times) >= 1.25 * looked):
            looked = len(times)
            found = Repeats(np.array(times), *_beside(blocks, looks))
            waited = now - began >= WAITING * precision.seconds
            if over or certain(found.at_one_pace(found.judged if waited else found.counts), precision.within):
                return found


def _beside(
    blocks: list[int], looks: list[PaceSample]
) -> tuple[Float[np.ndarray, " repeats"], Bool[np.ndarray, " repeats"]]:
    """The work's milliseconds beside all repeats, and which of them others did not disturb, by the looks around them."""
    if not looks:
        return np.ones(sum(blocks)), np.ones(sum(blocks), bool)
    return np.repeat(1e3 * work_between(looks), blocks), np.repeat(undisturbed(looks), blocks)


def compiled(net: SuperNet, inputs: PyTree[jax.ShapeDtypeStruct], device: jax.Device) -> Program:
    """The program of an extracted network (shapes are enough) on `inputs`, compiled ahead of time for a device.

    Raises ConfigError for a network with more than one sub-network.
    """
    if net.space.size != 1:
        raise ConfigError(f"only an extracted network can be timed; this one has {net.space.size} sub-networks")
    graph, weights = nnx.split(net)
    choice = (0,) * len(net.space.genes)

    def forward(weights: nnx.State, inputs: PyTree) -> PyTree:
        net = nnx.merge(graph, weights)
        return decode(net, inputs, choice, net.stored(), net.steps)

    weights = jax.device_put(_filled(weights), device)
    rng = np.random.default_rng(0)
    drawn = jax.tree.map(lambda leaf: jax.device_put(_drawn(rng, leaf), device), inputs)
    program = jax.jit(forward).lower(weights, drawn).compile()
    stats, costs = program.memory_analysis(), program.cost_analysis()
    memory = 0 if stats is None else (
        stats.argument_size_in_bytes + stats.output_size_in_bytes + stats.temp_size_in_bytes - stats.alias_size_in_bytes
    )  # fmt: skip
    return Program(lambda: jax.block_until_ready(program(weights, drawn)), memory, float((costs or {}).get("flops", np.nan)))


def filled(net: SuperNet) -> SuperNet:
    """A network of the same shapes, every weight a constant."""
    graph, weights = nnx.split(net)
    return nnx.merge(graph, _filled(weights))


def _filled(weights: nnx.State) -> nnx.State:
    return jax.tree.map(lambda leaf: jnp.full(leaf.shape, WEIGHT, leaf.dtype), weights)


def _drawn(rng: np.random.Generator, leaf: jax.ShapeDtypeStruct) -> Any:
    """Numbers that no kernel is quicker for; of whole numbers, zeros."""
    if not jnp.issubdtype(leaf.dtype, jnp.floating):
        return jnp.zeros(leaf.shape, leaf.dtype)
    return jnp.asarray(rng.normal(size=leaf.shape), leaf.dtype)


def joules(run: Callable[[], Any], clock: Callable[[], float], counter: EnergyCounter) -> float:
    """Joules of one run, the mean of some: nothing else is done between two readings of the counter."""
    before, began, number = counter.read(), clock(), 0
    while number < FEWEST or clock() - began < COUNTED:
        run()
        number += 1
    return counter.joules(before, counter.read()) / number


def measure_latency(
    program: Program,
    clock: Callable[[], float],
    *,
    batch: int,
    threads: int,
    device: str,
    precision: Precision = Precision(),
    counter: EnergyCounter | None = None,
    pace: Pace | None = None,
) -> Latency:
    """Times a program, beside a `counter` of energy where there is one; what it is called is written with the result."""
    found = timed(program.run, clock, precision, pace)
    energy = np.nan if counter is None else joules(program.run, clock, counter)
    times = found.at_one_pace(found.judged)
    low, high = np.quantile(times, (0.25, 0.75))
    return Latency(
        median=float(np.median(times)),
        spread=float(high - low),
        repeats=len(found.times),
        settled=certain(found.at_one_pace(found.counts), precision.within),
        batch=batch,
        threads=threads,
        device=device,
        versions={name: version(name) for name in LIBRARIES},
        memory=program.memory,
        flops=program.flops,
        energy=energy,
        shared=int((~found.counts).sum()),
        work=np.nan if pace is None else float(np.median(found.work[found.judged])),
    )
