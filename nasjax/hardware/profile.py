"""Latencies of a super-network's sub-networks on a target: measured, kept, and modelled."""

import re
from collections.abc import Generator, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from nasjax.errors import ConfigError
from nasjax.hardware.costs import cost_tables
from nasjax.hardware.energy import energy_counter
from nasjax.hardware.latency_model import Known, LatencyModel, fit_latency
from nasjax.hardware.latency_table import branches, extracted
from nasjax.hardware.measurement import Latency
from nasjax.hardware.targets import HARDWARE, Cpu, Csv, Target
from nasjax.hardware.timer import Timer
from nasjax.predictors import PREDICTORS, Inputs
from nasjax.registry import record, settings
from nasjax.runs.csv_io import read_architectures
from nasjax.space import SearchSpace
from nasjax.supernets.supernet import SuperNet
from nasjax.types import Population

Latencies = tuple[Int[np.ndarray, "rows genes"], Float[np.ndarray, " rows"]]
"""Architectures and what each takes, in milliseconds."""

HELD_OUT = 3
"""One in so many measured networks is held out."""

FIRST = 3
"""Where a device fails on so many networks from the first on, it will fail on all."""

BUSY = 10
"""The percentage of repeats while others had the processors, and of the pace's variation, from which on a person is told."""

LEAST = 6
"""Networks that a latency model needs, those held out among them."""


METRICS = ("latency", "throughput", "latency_measured", "energy")
"""What hardware may tell of a network."""


@dataclass(frozen=True)
class Profiled:
    """How far a profile is: `done` of `planned` programs are timed, and what the last one takes."""

    done: int
    planned: int
    milliseconds: float


@dataclass(frozen=True, eq=False)
class Profile:
    """A super-network on a target: `model` estimates, `measure` measures; `archs` and `milliseconds` are what was measured.

    `context` is what the latencies depend on beside the network, `origin` the settings and that. `joules`: those of the same
    networks, where energy is counted.
    """

    net: SuperNet = field(repr=False)
    model: LatencyModel
    target: Target | Csv
    context: Mapping[str, Any]
    archs: Int[np.ndarray, "rows genes"]
    milliseconds: Float[np.ndarray, " rows"]
    timer: Timer | None = field(repr=False)
    joules: Float[np.ndarray, " rows"] | None = None

    @property
    def batch(self) -> int:
        return self.target.batch

    @property
    def origin(self) -> dict[str, Any]:
        return {**record(HARDWARE, self.target), "context": dict(self.context)}

    @property
    def names(self) -> tuple[str, ...]:
        """The metrics of a network: of a recorded device, nothing is measured."""
        measured = () if self.timer is None else ("latency_measured",)
        return ("latency", "throughput", *measured, *(() if self.joules is None else ("energy",)))

    def words(self) -> str:
        """What a person is told of it."""
        found = self.model.errors
        held = f"on {found.rows} networks held out: error {found.mape:.1f} %, tau {found.tau:.2f}" if found else "unchecked"
        made = f"Latency on {self.context['device']}, batch {self.batch}, from {self.model.rows} measured networks; {held}"
        told = [] if self.timer is None else list(self.timer.told.values())
        missed = sum(not one.settled for one in told)
        made += f"; {missed} of {len(told)} measurements did not settle" if missed else ""
        shared = 100 * np.median([one.shared / one.repeats for one in told]) if told else 0
        made += f"; others had the processors in {shared:.0f} % of the repeats" if shared > BUSY else ""
        paces = [one.work for one in told if np.isfinite(one.work)]
        if self.timer is None or not paces:
            return made
        quick, usual, slow = np.quantile(paces, (0.1, 0.5, 0.9))
        varied, here = 100 * (slow / quick - 1), 100 * (usual / self.timer.pace - 1)
        made += f"; the processors' pace varied by {varied:.0f} %, latencies are at the usual one" if varied > BUSY else ""
        why = f"; these took {here:+.0f} %, latencies are at the pace that was usual when the first were timed"
        return made + (why if abs(here) > BUSY else "")

    def measure(self, archs: Population) -> Float[np.ndarray, " pop"]:
        """Milliseconds of a batch; of a recorded device, as recorded, else NaN."""
        return self._measured(archs)[0]

    def _measured(self, archs: Population) -> tuple[Float[np.ndarray, " pop"], Float[np.ndarray, " pop"]]:
        """Milliseconds and joules of a batch."""
        if self.timer is None:
            known = {arch.tobytes(): value for arch, value in zip(self.archs, self.milliseconds, strict=True)}
            found = np.array([known.get(arch.tobytes(), np.nan) for arch in np.asarray(archs, np.int32)])
            return found, np.full(len(found), np.nan)
        timed = [_time(self.net, self.timer, arch, self.batch) for arch in np.asarray(archs)]
        rows = [_milliseconds_and_joules(None if one is None else self.timer.usual(one)) for one in timed]
        return np.array([row[0] for row in rows]), np.array([row[1] for row in rows])

    def metrics(self, archs: Population) -> dict[str, Float[np.ndarray, " pop"]]:
        """What is stored of measured networks; where nothing can be measured, `latency` is the estimate."""
        measured, joules = self._measured(archs)
        latency = measured
        if self.timer is None:
            latency = np.where(np.isfinite(measured), measured, self.model.exact(archs))
        known = {
            "latency": latency,
            "throughput": 1e3 * self.batch / latency,
            "latency_measured": measured,
            "energy": joules,
        }
        return {name: known[name] for name in self.names}

    def estimates(self) -> dict[str, Any]:
        """What a search computes of networks that it has not measured: each with `estimate`, for use inside jit."""
        return {"latency": self.model, "throughput": Throughput(self.model, self.batch)}

    def ranges(self) -> dict[str, tuple[float, float]]:
        """Least and greatest value of every metric, fixed before a search measures anything."""
        most = self.model.maximum()
        dearest = np.nan if self.joules is None else 1.1 * float(self.joules.max())
        bounds = {"throughput": np.inf, "energy": dearest}
        return {name: (0.0, bounds.get(name, most)) for name in self.names}


@dataclass(frozen=True, eq=False)
class Throughput:
    """Examples a second of a latency model."""

    model: LatencyModel
    batch: int

    def estimate(self, archs: Population) -> Float[Array, " pop"]:
        return 1e3 * self.batch / self.model.estimate(archs)


class Timed:
    """An evaluator whose chunks are timed too, after they were evaluated."""

    def __init__(self, evaluator: Any, made: Profile):
        self._evaluator, self._made = evaluator, made
        self.chunk: int = evaluator.chunk
        self.metrics: tuple[str, ...] = (*evaluator.metrics, *made.names)
        self.context: Mapping[str, Any] = {**evaluator.context, "hardware": made.context}

    def __call__(self, archs: Population) -> dict[str, Float[np.ndarray, " pop"]]:
        return self._evaluator(archs) | self._made.metrics(archs)


def profile(net: SuperNet, hardware: Any, steps: int = 1) -> Profile:
    """Runs `profiling` to its end."""
    progress = profiling(net, hardware, steps)
    while True:
        try:
            next(progress)
        except StopIteration as end:
            return end.value


def profiling(net: SuperNet, hardware: Any, steps: int = 1) -> Generator[Profiled, None, Profile]:
    """Measures what a latency model needs: yields after every program, returns the `Profile`.

    `hardware`: a name, a mapping with `name` and settings, or settings. Raises ConfigError for what a person can put right.
    """
    target = settings("hardware", HARDWARE, hardware)
    settings("hardware.predictor", PREDICTORS, target.predictor)  # Refused before anything is timed.
    shapes: SuperNet = nnx.eval_shape(lambda: net)
    if isinstance(target, Csv):
        return _recorded(shapes, target)
    return (yield from _measured(shapes, target))


def _measured(net: SuperNet, target: Target) -> Generator[Profiled, None, Profile]:
    """A profile of a device that is here."""
    source = None if target.source is None else _source(net, target.source, target.predictor)
    precision = {name: value for name, value in asdict(target).items() if name in ("within", "seconds")}
    timer = Timer(target.open(), None if target.file is None else Path(target.file), precision)
    parts = branches(net, target.batch) if target.table and source is None else None
    archs = networks_to_measure(net.space, target.networks)
    planned = len(archs) + (0 if parts is None else len(parts.distinct))
    done = 0
    timed: dict[str, Latency] = {}
    for name, branch in {} if parts is None else parts.distinct.items():
        timed[name] = timer(branch.network, branch.carry)
        done += 1
        yield Profiled(done, planned, timed[name].median)
    whole: list[Latency | None] = []
    for arch in archs:
        whole.append(_time(net, timer, arch, target.batch))
        if len(whole) == FIRST and not any(whole):
            raise ConfigError(f"the first {FIRST} networks all failed: {timer.failure}")
        done += 1
        yield Profiled(done, planned, _milliseconds_and_joules(whole[-1])[0])
    archs = archs[[one is not None for one in whole]]
    if len(archs) < LEAST:
        why = timer.failure or "the super-network has no more"
        raise ConfigError(f"{len(archs)} of {len(whole)} networks could be timed, {LEAST} are needed: {why}")
    timer.fix_pace()  # Only now is it known what is usual.
    usual = [timer.usual(one) for one in whole if one is not None]
    latencies, joules = np.array([_milliseconds_and_joules(one) for one in usual]).T
    sums = None if parts is None else parts.sums({name: timer.usual(one).median for name, one in timed.items()})
    known: Known | None = sums if source is None else source.column
    inputs = Inputs(net.space, cost_tables(net)["macs"].by_unit if sums is None else sums.by_unit)
    model = _fitted(target.predictor, inputs, archs, latencies, known)
    context = {**timer.context, "batch": target.batch}
    return Profile(net, model, target, context, archs, latencies, timer, joules if "energy" in context else None)


def _recorded(net: SuperNet, target: Csv) -> Profile:
    """A profile of a device whose latencies are in a file."""
    if not target.file:
        raise ConfigError("hardware=csv needs hardware.file=FILE.csv, with a column for each gene and one of milliseconds")
    (archs, milliseconds), estimated = read_latencies("hardware.file", Path(target.file), target.column, net.space)
    inputs = Inputs(net.space, cost_tables(net)["macs"].by_unit)
    model = _fitted(target.predictor, inputs, archs, milliseconds, None, estimated)
    kept = sha256(archs.tobytes() + milliseconds.tobytes()).hexdigest()[:16]
    context = {"device": f"{target.column} in {Path(target.file).name}", "latencies": kept, "batch": target.batch}
    return Profile(net, model, target, context, archs, milliseconds, None)


def _source(net: SuperNet, file: str, predictor: str) -> LatencyModel:
    """The model of another device whose latencies are in a file."""
    (archs, milliseconds), estimated = read_latencies("hardware.source", Path(file), "latency", net.space)
    return _fitted(predictor, Inputs(net.space, cost_tables(net)["macs"].by_unit), archs, milliseconds, None, estimated)


def _fitted(
    predictor: str,
    inputs: Inputs,
    archs: Population,
    milliseconds: Float[np.ndarray, " rows"],
    known: Known | None,
    estimated: Latencies | None = None,
) -> LatencyModel:
    """A model, and its error on every third network; the extremes, which come first, are fitted.

    What was `estimated` elsewhere (by a table that is not here) is fitted beside them, but says nothing of errors.
    """
    held = np.arange(len(archs)) % HELD_OUT == HELD_OUT - 1
    held_out = (archs[held], milliseconds[held])
    made = settings("predictor", PREDICTORS, predictor)
    if estimated is None:
        return fit_latency(made, inputs, archs[~held], milliseconds[~held], known, held_out)
    rows, values = np.concatenate([archs[~held], estimated[0]]), np.concatenate([milliseconds[~held], estimated[1]])
    return replace(fit_latency(made, inputs, rows, values, known, held_out), rows=int((~held).sum()))


def networks_to_measure(space: SearchSpace, number: int) -> Int[np.ndarray, "pop genes"]:
    """The smallest, the largest and random architectures, each once; the same for every device."""
    drawn = np.asarray(space.sample(jax.random.key(0), 2 * number))
    archs = np.concatenate([np.stack([space.smallest(), space.largest()]), drawn]).astype(np.int32)
    first = np.sort(np.unique(archs, axis=0, return_index=True)[1])
    return archs[first][:number]


def _time(net: SuperNet, timer: Timer, arch: Int[np.ndarray, " genes"], batch: int) -> Latency | None:
    """The latency of one sub-network, whole, as it was measured; None where the device fails on it."""
    network = extracted(net, tuple(map(int, arch)))
    return timer.tried(network, network.inputs(batch))


def _milliseconds_and_joules(found: Latency | None) -> tuple[float, float]:
    """Those of a batch; NaN where nothing was found."""
    return (np.nan, np.nan) if found is None else (found.median, found.energy)


def check_energy(words: Iterable[str], hardware: Any) -> None:
    """Raises ConfigError where objectives or constraints name energy, and nothing here counts it."""
    if hardware is None or not any(re.match(r"\s*(min:|max:)?energy\b", word) for word in words):
        return
    target = hardware.target if isinstance(hardware, Profile) else settings("hardware", HARDWARE, hardware)
    if not isinstance(target, Cpu):
        raise ConfigError("energy is counted on hardware=cpu alone, where the processor has a counter; leave energy out")
    energy_counter()


def read_latencies(what: str, file: Path, column: str, space: SearchSpace) -> tuple[Latencies, Latencies]:
    """Measured architectures and milliseconds of a CSV, each once (the median of its rows), and those only estimated.

    A row is estimated where its column `obtained`, if there is one, says so. Raises ConfigError where a row has no latency
    above 0, or none is measured.
    """
    archs, rows = read_architectures(what, file, space)
    if column not in rows[0]:
        raise ConfigError(f"{file} has no column {column!r} of milliseconds; it has {', '.join(filter(None, rows[0]))}")
    values = []
    for line, row in enumerate(rows, 2):
        try:
            value = float(row[column])
        except (ValueError, TypeError):
            value = np.nan
        if not 0 < value < np.inf:
            raise ConfigError(f"{file}, line {line}: {column}={row[column] or ''!r} is not a latency above 0")
        values.append(value)
    obtained = [row.get("obtained") for row in rows]
    times: dict[str, dict[bytes, list[float]]] = {"measured": {}, "estimated": {}}
    for arch, value, how in zip(archs, values, obtained, strict=True):
        times["estimated" if how == "estimated" else "measured"].setdefault(arch.tobytes(), []).append(value)
    if not times["measured"]:
        raise ConfigError(f"{what}={file} has estimated latencies alone; some must be measured")
    for name in times["measured"].keys() & times["estimated"].keys():
        del times["estimated"][name]

    def medians(found: Mapping[bytes, list[float]]) -> Latencies:
        unique = np.frombuffer(b"".join(found), np.int32).reshape(len(found), -1) if found else archs[:0]
        return unique.copy(), np.array([float(np.median(value)) for value in found.values()])

    return medians(times["measured"]), medians(times["estimated"])


def latency_rows(made: Profile, number: int) -> tuple[list[str], list[list[Any]]]:
    """Header and rows of what was measured and of `number` random estimates: a table that `hardware=csv` reads."""
    space = made.net.space
    drawn = np.asarray(space.sample(jax.random.key(1), number), np.int32)
    archs = np.concatenate([made.archs, drawn])
    first = np.sort(np.unique(archs, axis=0, return_index=True)[1])
    estimates = made.model.exact(archs)
    rows = []
    for i in first.tolist():
        measured = i < len(made.archs)
        chosen = space.decode(archs[i])
        value = made.milliseconds[i] if measured else estimates[i]
        words = [chosen.get(name, "") for name in space.names]
        rows.append([*words, float(value), float(estimates[i]), "measured" if measured else "estimated"])
    return [*space.names, "latency", "estimate", "obtained"], rows
