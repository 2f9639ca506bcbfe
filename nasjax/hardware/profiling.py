"""Makes profiles: times stages and whole networks, or reads recorded latencies, and fits the latency model."""

from collections.abc import Generator
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Float, Int

from nasjax.errors import ConfigError
from nasjax.generators import result_of
from nasjax.hardware.costs import cost_tables
from nasjax.hardware.latency_model import LatencyModel, LatencyPrior, fit_latency
from nasjax.hardware.latency_table import branches
from nasjax.hardware.measurement import Latency
from nasjax.hardware.profile import Hardware, Profile
from nasjax.hardware.recorded import Latencies, read_latencies
from nasjax.hardware.targets import HARDWARE, MIN_NETWORKS, Csv, Target
from nasjax.hardware.timer import Timer
from nasjax.jax_defaults import with_jax_defaults
from nasjax.predictors import PREDICTORS, Inputs
from nasjax.registry import settings
from nasjax.space import SearchSpace
from nasjax.supernets.supernet import SuperNet
from nasjax.types import Population

HELD_OUT_EVERY = 3
"""Every third measured network is held out."""

FAILURES_TO_STOP = 3
"""A device that fails on the first so many networks is taken to fail on all."""


@dataclass(frozen=True)
class ProfilingProgress:
    """`done` of `planned` programs are timed; the last one took `milliseconds` (NaN: it failed)."""

    done: int
    planned: int
    milliseconds: float


def profile(net: SuperNet, hardware: Hardware) -> Profile:
    """The profile of a super-network on hardware; the same as `profiling`, without progress."""
    return result_of(profiling(net, hardware))


@with_jax_defaults
def profiling(net: SuperNet, hardware: Hardware) -> Generator[ProfilingProgress, None, Profile]:
    """Makes a profile: yields its progress after every program that was timed, and returns the `Profile`.

    `hardware`: a name, a mapping with `name` and settings, or settings. Raises ConfigError for invalid settings, a device
    that is not there, and too few networks that it can time.
    """
    target = settings("hardware", HARDWARE, hardware)
    settings("hardware.predictor", PREDICTORS, target.predictor)  # Checked before anything is timed.
    shapes = net.shapes(net.steps, net.beams)
    if isinstance(target, Csv):
        return _recorded_profile(shapes, target)
    return (yield from _measured_profile(shapes, target))


def _measured_profile(net: SuperNet, target: Target) -> Generator[ProfilingProgress, None, Profile]:
    """A profile on a device that times networks."""
    source = None if target.source is None else _source_model(net, target.source, target.predictor)
    precision = {name: value for name, value in asdict(target).items() if name in ("within", "seconds")}
    timer = Timer(target.open(), None if target.file is None else Path(target.file), precision)
    parts = branches(net, target.batch) if target.table and source is None else None
    archs = networks_to_measure(net.space, target.networks)
    planned = len(archs) + (0 if parts is None else len(parts.distinct))
    done = 0
    of_branches: dict[str, Latency] = {}
    for name, branch in {} if parts is None else parts.distinct.items():
        of_branches[name] = timer(branch.network, branch.carry)
        done += 1
        yield ProfilingProgress(done, planned, of_branches[name].median)
    of_networks: list[Latency | None] = []
    for arch in archs:
        latency = timer.sub_network(net, arch, target.batch)
        of_networks.append(latency)
        if len(of_networks) == FAILURES_TO_STOP and not any(of_networks):
            raise ConfigError(f"the first {FAILURES_TO_STOP} networks all failed: {timer.last_failure}")
        done += 1
        yield ProfilingProgress(done, planned, np.nan if latency is None else latency.median)
    archs = archs[[latency is not None for latency in of_networks]]
    if len(archs) < MIN_NETWORKS:
        reason = timer.last_failure or "the search space has no more"
        raise ConfigError(f"{len(archs)} of {len(of_networks)} networks could be timed, {MIN_NETWORKS} are needed: {reason}")
    timer.fix_reference_pace()  # Only after all measurements: it is their median.
    scaled = [timer.at_reference_pace(latency) for latency in of_networks if latency is not None]
    milliseconds, joules = np.array([(latency.median, latency.energy) for latency in scaled]).T
    table = None
    if parts is not None:
        table = parts.sums({name: timer.at_reference_pace(latency).median for name, latency in of_branches.items()})
    prior: LatencyPrior | None = table if source is None else source.as_prior
    inputs = _inputs(net) if table is None else Inputs(net.space, table.by_unit)
    model = _fitted_model(target.predictor, inputs, (archs, milliseconds), prior)
    decoding = {"steps": net.steps, "beams": net.beams} if net.steps > 1 else {}
    context = {**timer.context, "batch": target.batch, **decoding}
    return Profile(net, model, target, context, archs, milliseconds, timer, joules if "energy" in context else None)


def _recorded_profile(net: SuperNet, target: Csv) -> Profile:
    """A profile from latencies in a file."""
    if not target.file:
        raise ConfigError("hardware=csv needs hardware.file=FILE.csv, with a column for each gene and one of milliseconds")
    measured, estimated = read_latencies("hardware.file", Path(target.file), target.column, net.space)
    model = _fitted_model(target.predictor, _inputs(net), measured, None, estimated)
    archs, milliseconds = measured
    digest = sha256(archs.tobytes() + milliseconds.tobytes()).hexdigest()[:16]
    context = {"device": f"{target.column} in {Path(target.file).name}", "latencies": digest, "batch": target.batch}
    return Profile(net, model, target, context, archs, milliseconds, None)


def _source_model(net: SuperNet, file: str, predictor: str) -> LatencyModel:
    """The model of another device, from its latencies in a file."""
    measured, estimated = read_latencies("hardware.source", Path(file), "latency", net.space)
    return _fitted_model(predictor, _inputs(net), measured, None, estimated)


def _inputs(net: SuperNet) -> Inputs:
    """What a predictor reads without a latency table: features of the space and multiply-accumulates of each unit."""
    return Inputs(net.space, cost_tables(net)["macs"].by_unit)


def _fitted_model(
    predictor: str,
    inputs: Inputs,
    measured: Latencies,
    prior: LatencyPrior | None,
    estimated: Latencies | None = None,
) -> LatencyModel:
    """A latency model with its errors on every third measured network; the extremes, which come first, are fitted.

    `estimated` latencies (in a file, made elsewhere with a table) are fitted too, but count neither as rows nor for errors.
    """
    archs, milliseconds = measured
    held = np.arange(len(archs)) % HELD_OUT_EVERY == HELD_OUT_EVERY - 1
    held_out = (archs[held], milliseconds[held])
    config = settings("predictor", PREDICTORS, predictor)
    if estimated is None:
        return fit_latency(config, inputs, archs[~held], milliseconds[~held], prior, held_out)
    rows: Population = np.concatenate([archs[~held], estimated[0]])
    values: Float[np.ndarray, " rows"] = np.concatenate([milliseconds[~held], estimated[1]])
    return replace(fit_latency(config, inputs, rows, values, prior, held_out), rows=int((~held).sum()))


def networks_to_measure(space: SearchSpace, number: int) -> Int[np.ndarray, "pop genes"]:
    """The smallest, the largest and random architectures, `number` at most, each once; the same for every device."""
    drawn = np.asarray(space.sample(jax.random.key(0), 2 * number))
    archs = np.concatenate([np.stack([space.smallest(), space.largest()]), drawn]).astype(np.int32)
    first = np.sort(np.unique(archs, axis=0, return_index=True)[1])
    return archs[first][:number]
