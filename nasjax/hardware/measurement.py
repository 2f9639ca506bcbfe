"""Measures a network's latency: compiles it ahead of time, warms up, and repeats until the median is precise.

Repeats run one after the other, and this process does nothing else meanwhile. Other programs and machines show in the
processors' pace: repeats are scaled to one pace, and are not counted while others take the processors. Clock, program and
pace are arguments, so that tests need no real clock.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jaxtyping import Array, Bool, Float, PyTree

from nasjax.errors import ConfigError
from nasjax.hardware.energy import EnergyCounter
from nasjax.hardware.pace import Pace, PaceSample, undisturbed, work_between
from nasjax.supernets.decode import decode
from nasjax.supernets.supernet import SuperNet

CONFIDENCE = 0.95
"""The confidence level of a median's interval."""

LIBRARIES = ("jax", "jaxlib")
"""Libraries whose versions are stored with a latency."""

WEIGHT_VALUE = 0.01
"""The value of every weight of a network that is timed: only shapes are known, and latencies do not depend on values."""

MIN_BLOCK = 0.002
"""The least seconds of repeats between two samples of the processors' pace."""

BLOCK_TO_SAMPLE = 5
"""The least ratio of those seconds to the seconds that a sample takes."""

MIN_REPEATS = 6
"""The least number of repeats whose median has a finite confidence interval."""

NEVER_SEEN = 12345.678
"""A value that no output has, see `timed_function`."""

BATCHES = 20
"""The number of batches whose medians give the confidence interval, since consecutive repeats are correlated."""

UNDISTURBED_SHARE = 1 / 3
"""The share of a measurement's time after which disturbed repeats count too, if there are not enough others."""

ENERGY_SECONDS = 0.5
"""Seconds of repeats over which energy is averaged."""


@dataclass(frozen=True)
class Precision:
    """When a measurement ends: once the median's confidence interval is `within` a share of it, or after `seconds`.

    `least`: the least seconds of repeats; `warm`: seconds of warm-up before them.
    """

    within: float = 0.02
    seconds: float = 10.0
    least: float = 0.5
    warm: float = 0.1


@dataclass(frozen=True)
class Latency:
    """A measured latency of a batch, in milliseconds, and what it was measured with.

    Attributes:
      median, spread: median and interquartile range, scaled to the pace `work`.
      repeats: number of repeats; `shared` of them were disturbed by others, and count only if nearly all were.
      settled: whether the median's 95 % confidence interval reached the precision.
      memory: bytes of the compiled program's arguments, results and temporary buffers.
      flops: XLA's count.
      energy: joules of a batch, the mean of separate repeats; NaN if it cannot be measured.
      work: median milliseconds of the workload of `nasjax.hardware.pace` meanwhile; NaN if the pace is not sampled.
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
        """The latency scaled to another pace, at which the workload takes `work` milliseconds."""
        factor = work / self.work
        return replace(self, median=self.median * factor, spread=self.spread * factor, work=work)


class Repeats(NamedTuple):
    """Milliseconds of all repeats, of the pace's workload at their time (1: unknown), and whether they were undisturbed."""

    times: Float[np.ndarray, " repeats"]
    work: Float[np.ndarray, " repeats"]
    undisturbed: Bool[np.ndarray, " repeats"]

    @property
    def counted(self) -> Bool[np.ndarray, " repeats"]:
        """The repeats that count: the undisturbed ones, or all if these are too few."""
        return self.undisturbed if self.undisturbed.sum() >= MIN_REPEATS else np.ones_like(self.undisturbed)

    def scaled(self, chosen: Bool[np.ndarray, " repeats"]) -> Float[np.ndarray, " chosen"]:
        """Milliseconds of the chosen repeats, scaled to their median pace."""
        return self.times[chosen] * (np.median(self.work[chosen]) / self.work[chosen] if chosen.any() else 1.0)


class Program(NamedTuple):
    """A compiled program: `run` executes it and waits for its results."""

    run: Callable[[], Any]
    memory: int
    flops: float


def median_interval(times: Float[np.ndarray, " repeats"]) -> tuple[float, float]:
    """The 95 % confidence interval of the median by order statistics; infinite for fewer than six times.

    No shape of the times' distribution is assumed (David and Nagaraja, Order Statistics, 3rd edition, section 7.1).
    """
    from scipy.stats import binom  # Takes a second.

    rank = int(binom.ppf((1 - CONFIDENCE) / 2, len(times), 0.5)) if len(times) else 0
    if rank < 1:
        return -np.inf, np.inf
    ordered = np.sort(times)
    return float(ordered[rank - 1]), float(ordered[-rank])


def is_precise(times: Float[np.ndarray, " repeats"], within: float) -> bool:
    """Whether the confidence interval of the median is within a share of the median, on both sides.

    Disturbances last for many repeats, which are thus correlated: the interval is that of the medians of BATCHES batches
    (batch means: Law and Kelton, Simulation Modeling and Analysis, section 9.5.3).
    """
    batches = np.array([np.median(batch) for batch in np.array_split(times, min(len(times), BATCHES))] if len(times) else [])
    low, high = median_interval(batches)
    median = float(np.median(batches)) if len(batches) else np.nan
    return max(high - median, median - low) <= within * median


def time_repeats(
    run: Callable[[], Any], clock: Callable[[], float], precision: Precision = Precision(), pace: Pace | None = None
) -> Repeats:
    """Times repeats of `run` until the precision is reached; `clock` returns seconds.

    With a `pace`, its samples between blocks of repeats show which repeats others disturbed.
    """
    began = clock()
    run()
    while clock() - began < precision.warm:
        run()
    times: list[float] = []
    samples = [] if pace is None else [pace.sample()]
    blocks: list[int] = []  # The number of repeats between two samples.
    began, checked, block = clock(), 0, MIN_BLOCK
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
            samples.append(pace.sample())
            block = max(MIN_BLOCK, BLOCK_TO_SAMPLE * (clock() - now))
        over = now - began >= precision.seconds
        # Checks take time between repeats: the more repeats, the fewer checks.
        if over or (now - began >= precision.least and len(times) >= 1.25 * checked):
            checked = len(times)
            repeats = Repeats(np.array(times), *_pace_by_repeat(blocks, samples))
            waited = now - began >= UNDISTURBED_SHARE * precision.seconds
            chosen = repeats.counted if waited else repeats.undisturbed
            if over or is_precise(repeats.scaled(chosen), precision.within):
                return repeats


def _pace_by_repeat(
    blocks: list[int], samples: list[PaceSample]
) -> tuple[Float[np.ndarray, " repeats"], Bool[np.ndarray, " repeats"]]:
    """The workload's milliseconds, and whether it was undisturbed, for each repeat: from the samples before and after."""
    if not samples:
        return np.ones(sum(blocks)), np.ones(sum(blocks), bool)
    return np.repeat(1e3 * work_between(samples), blocks), np.repeat(undisturbed(samples), blocks)


def compiled(net: SuperNet, inputs: PyTree[jax.ShapeDtypeStruct], device: jax.Device) -> Program:
    """An extracted network (shapes are enough) with `inputs`, compiled ahead of time for a device.

    One without repeated stages runs `net.steps` times: a decoder's stage alone takes less than starting a program does.
    Raises ConfigError for a network with more than one sub-network.
    """
    if net.space.size != 1:
        raise ConfigError(f"only an extracted network can be timed; this one has {net.space.size} sub-networks")
    weights = jax.device_put(_constant_weights(nnx.split(net)[1]), device)
    rng = np.random.default_rng(0)
    values = jax.tree.map(lambda leaf: jax.device_put(_random_values(rng, leaf), device), inputs)
    program = jax.jit(timed_function(net)).lower(weights, values).compile()
    stats, costs = program.memory_analysis(), program.cost_analysis()
    memory = 0 if stats is None else (
        stats.argument_size_in_bytes + stats.output_size_in_bytes + stats.temp_size_in_bytes - stats.alias_size_in_bytes
    )  # fmt: skip
    return Program(
        lambda: jax.block_until_ready(program(weights, values)), memory, float((costs or {}).get("flops", np.nan))
    )


def timed_function(net: SuperNet) -> Callable[[nnx.State, PyTree], list[Array]]:
    """What is timed of an extracted network: a function of its weights and inputs that returns all that it computes.

    A network without repeated stages runs `net.steps` times, each on what the run before returned.
    """
    graph, choice = nnx.split(net)[0], (0,) * len(net.space.genes)

    passed: set[str] = set()  # Inputs that are left for later stages.

    def once(weights: nnx.State, inputs: PyTree) -> dict[str, Array]:
        net, given = nnx.merge(graph, weights), _by_path(inputs)
        outputs = _by_path(decode(net, inputs, choice, net.stored(), net.steps))
        passed.update(path for path, leaf in given.items() if any(leaf is one for one in outputs.values()))
        # What a decoder's stage only passes on, such as the caches of other layers, would be copied.
        return {path: leaf for path, leaf in outputs.items() if not any(leaf is one for one in given.values())}

    def runs(weights: nnx.State, inputs: PyTree) -> list[Array]:
        shapes, first = jax.eval_shape(once, weights, inputs), _by_path(inputs)
        fed = {path for path, new in shapes.items() if path in first and _same_shape(first[path], new)}

        def again(_: Any, before: dict[str, Array]) -> dict[str, Array]:
            # Never true, which the compiler does not know: else it would take what every run computes out of the loop.
            late = jax.tree.leaves(before)[0].ravel()[0] == NEVER_SEEN

            def given(path: Any, leaf: Array) -> Array:
                name = jax.tree_util.keystr(path)
                if name in fed:
                    return before[name]
                large = name in passed and jnp.issubdtype(leaf.dtype, jnp.floating)  # Other layers' caches.
                return leaf if large else jnp.where(late, jnp.zeros_like(leaf), leaf)

            return once(weights, jax.tree_util.tree_map_with_path(given, inputs))

        zeros = {path: first[path] if path in fed else jnp.zeros(new.shape, new.dtype) for path, new in shapes.items()}
        return list(lax.fori_loop(0, net.steps, again, zeros).values())

    if net.steps > 1 and net.first_repeated == len(net.stages):
        return runs
    return lambda weights, inputs: list(once(weights, inputs).values())


def _by_path(tree: PyTree) -> dict[str, Any]:
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def _same_shape(first: Any, second: Any) -> bool:
    return (first.shape, first.dtype) == (second.shape, second.dtype)


def filled(net: SuperNet) -> SuperNet:
    """The network with every weight set to a constant."""
    graph, weights = nnx.split(net)
    return nnx.merge(graph, _constant_weights(weights))


def _constant_weights(weights: nnx.State) -> nnx.State:
    return jax.tree.map(lambda leaf: jnp.full(leaf.shape, WEIGHT_VALUE, leaf.dtype), weights)


def _random_values(rng: np.random.Generator, leaf: jax.ShapeDtypeStruct) -> Any:
    """Normal draws, since some kernels are faster for special values; zeros for integers."""
    if not jnp.issubdtype(leaf.dtype, jnp.floating):
        return jnp.zeros(leaf.shape, leaf.dtype)
    return jnp.asarray(rng.normal(size=leaf.shape), leaf.dtype)


def measure_energy(run: Callable[[], Any], clock: Callable[[], float], counter: EnergyCounter) -> float:
    """Joules of one run, the mean of several runs between two readings of the counter."""
    before, began, number = counter.read(), clock(), 0
    while number < MIN_REPEATS or clock() - began < ENERGY_SECONDS:
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
    """Measures a program's latency, and its energy if there is a `counter`; other arguments are stored with the result."""
    repeats = time_repeats(program.run, clock, precision, pace)
    energy = np.nan if counter is None else measure_energy(program.run, clock, counter)
    times = repeats.scaled(repeats.counted)
    low, high = np.quantile(times, (0.25, 0.75))
    return Latency(
        median=float(np.median(times)),
        spread=float(high - low),
        repeats=len(repeats.times),
        settled=is_precise(repeats.scaled(repeats.undisturbed), precision.within),
        batch=batch,
        threads=threads,
        device=device,
        versions={name: version(name) for name in LIBRARIES},
        memory=program.memory,
        flops=program.flops,
        energy=energy,
        shared=int((~repeats.undisturbed).sum()),
        work=np.nan if pace is None else float(np.median(repeats.work[repeats.counted])),
    )
