"""Profile of a super-network on a target: measures the latency of sub-networks, and estimates it with a latency model.

`nasjax.hardware.profiling` makes profiles.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from jaxtyping import Array, Float, Int

from nasjax.errors import ConfigError
from nasjax.hardware.energy import energy_counter
from nasjax.hardware.latency_model import LatencyModel
from nasjax.hardware.targets import HARDWARE, Cpu, Csv, Target
from nasjax.hardware.timer import Timer
from nasjax.registry import record, settings
from nasjax.supernets.supernet import SuperNet
from nasjax.types import Population
from nasjax.words import plural

MENTION_ABOVE = 10
"""Percentages above which a summary mentions disturbed repeats and a varying pace."""

Hardware = str | Mapping[str, Any] | Target | Csv
"""A target: its name, a mapping with `name` and settings, or settings."""


@dataclass(frozen=True, eq=False)
class Profile:
    """A super-network on a target.

    `model` estimates latencies. `archs` and `milliseconds` (of a batch, at the reference pace) are the networks that it was
    made from, held-out ones included, `joules` their energy where it is measured. `timer` measures further networks; None
    for recorded latencies. `context` holds all that latencies depend on besides the network.
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
        """Number of examples in a batch."""
        return self.target.batch

    @property
    def origin(self) -> dict[str, Any]:
        """Settings and context as plain data, as a run records them."""
        return {**record(HARDWARE, self.target), "context": dict(self.context)}

    @property
    def metric_names(self) -> tuple[str, ...]:
        """Names of the metrics that `metrics` returns."""
        measured = () if self.timer is None else ("latency_measured",)
        return ("latency", "throughput", *measured, *(() if self.joules is None else ("energy",)))

    def summary(self) -> str:
        """One line for the user: the device, the model's errors, and how steady the measurements were."""
        errors = self.model.errors
        checked = (
            f"on {plural(errors.rows, 'network')} held out: error {errors.mape:.1f} %, tau {errors.tau:.2f}"
            if errors
            else ""
        )
        decoding = f", {self.net.steps} tokens of {plural(self.net.beams, 'beam')}" if self.net.steps > 1 else ""
        measured = plural(self.model.rows, "measured network")
        made = f"Latency on {self.context['device']}, batch {self.batch}{decoding}, from {measured}"
        notes = [] if self.timer is None else _timing_notes(self.timer)
        return "; ".join([made, checked or "errors unknown", *notes])

    def measure(self, archs: Population) -> Float[np.ndarray, " pop"]:
        """Measured milliseconds of a batch, at the reference pace; NaN where a network failed or is not recorded."""
        return self._measure(archs)[0]

    def _measure(self, archs: Population) -> tuple[Float[np.ndarray, " pop"], Float[np.ndarray, " pop"]]:
        """Measured milliseconds and joules of a batch; NaN where unknown."""
        archs = np.asarray(archs, np.int32)
        unknown = np.full(len(archs), np.nan)
        if self.timer is None:
            recorded = {arch.tobytes(): value for arch, value in zip(self.archs, self.milliseconds, strict=True)}
            return np.array([recorded.get(arch.tobytes(), np.nan) for arch in archs]), unknown
        milliseconds, joules = unknown, unknown.copy()
        for i, arch in enumerate(archs):
            latency = self.timer.sub_network(self.net, arch, self.batch)
            if latency is not None:
                latency = self.timer.at_reference_pace(latency)
                milliseconds[i], joules[i] = latency.median, latency.energy
        return milliseconds, joules

    def metrics(self, archs: Population) -> dict[str, Float[np.ndarray, " pop"]]:
        """Metrics of evaluated networks, for storing; networks without a recorded latency get the model's estimate."""
        measured, joules = self._measure(archs)
        latency = measured
        if self.timer is None:
            latency = np.where(np.isfinite(measured), measured, self.model.exact(archs))
        values = {
            "latency": latency,
            "throughput": 1e3 * self.batch / latency,
            "latency_measured": measured,
            "energy": joules,
        }
        return {name: values[name] for name in self.metric_names}

    def estimates(self) -> "dict[str, LatencyModel | ThroughputModel]":
        """Models of what a search can compute of networks that it has not measured: `estimate` works inside jit."""
        return {"latency": self.model, "throughput": ThroughputModel(self.model, self.batch)}

    def ranges(self) -> dict[str, tuple[float, float]]:
        """Smallest and largest expected value of every metric, fixed before a search measures anything."""
        slowest = self.model.maximum()
        most_energy = np.nan if self.joules is None else 1.1 * float(self.joules.max())
        largest = {"throughput": np.inf, "energy": most_energy}
        return {name: (0.0, largest.get(name, slowest)) for name in self.metric_names}


def _timing_notes(timer: Timer) -> list[str]:
    """What a user should know of the measurements: not settled, disturbed by others, or at another pace."""
    notes = []
    latencies = list(timer.requested.values())
    unsettled = sum(not latency.settled for latency in latencies)
    if unsettled:
        notes.append(f"{unsettled} of {plural(len(latencies), 'measurement')} did not settle")
    disturbed = 100 * np.median([latency.shared / latency.repeats for latency in latencies]) if latencies else 0
    if disturbed > MENTION_ABOVE:
        notes.append(f"other programs used the processors during {disturbed:.0f} % of the repeats")
    paces = [latency.work for latency in latencies if np.isfinite(latency.work)]
    if not paces:
        return notes
    fast, middle, slow = np.quantile(paces, (0.1, 0.5, 0.9))
    variation, change = 100 * (slow / fast - 1), 100 * (middle / timer.reference_pace - 1)
    if variation > MENTION_ABOVE:
        notes.append(f"the processors' pace varied by {variation:.0f} %")
    if abs(change) > MENTION_ABOVE:
        notes.append(f"the processors' pace is {change:+.0f} % off the stored reference (+: slower)")
    if max(variation, abs(change)) > MENTION_ABOVE:
        notes.append("latencies are scaled to the reference pace")
    return notes


@dataclass(frozen=True, eq=False)
class ThroughputModel:
    """Estimates examples a second with a latency model."""

    model: LatencyModel
    batch: int

    def estimate(self, archs: Population) -> Float[Array, " pop"]:
        """Examples a second in float32, for use inside jit."""
        return 1e3 * self.batch / self.model.estimate(archs)


class ChunkEvaluator(Protocol):
    """Evaluates at most `chunk` architectures at once; `context` holds all that the values depend on."""

    chunk: int
    metrics: tuple[str, ...]
    context: Mapping[str, Any]

    def __call__(self, archs: Population) -> dict[str, Float[np.ndarray, " pop"]]: ...


class Timed:
    """An evaluator that also measures the hardware's metrics: a chunk is evaluated, then timed."""

    def __init__(self, evaluator: ChunkEvaluator, profile: Profile):
        self._evaluator, self._profile = evaluator, profile
        self.chunk: int = evaluator.chunk
        self.metrics: tuple[str, ...] = (*evaluator.metrics, *profile.metric_names)
        self.context: Mapping[str, Any] = {**evaluator.context, "hardware": profile.context}

    def __call__(self, archs: Population) -> dict[str, Float[np.ndarray, " pop"]]:
        return self._evaluator(archs) | self._profile.metrics(archs)


def check_energy(names: Iterable[str], hardware: Hardware | Profile | None) -> None:
    """Raises ConfigError if objectives or constraints name energy, and it cannot be measured on this hardware."""
    if hardware is None or not any(re.match(r"\s*(min:|max:)?energy\b", name) for name in names):
        return
    target = hardware.target if isinstance(hardware, Profile) else settings("hardware", HARDWARE, hardware)
    if not isinstance(target, Cpu):
        raise ConfigError("energy can be measured with hardware=cpu only; leave energy out, or use hardware=cpu")
    energy_counter()
