"""Targets: what a person says of the hardware that networks are for."""

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax

from nasjax.errors import ConfigError
from nasjax.hardware.devices import Device, Here, Process, Program
from nasjax.hardware.energy import counter_here
from nasjax.hardware.measurement import Precision
from nasjax.hardware.pace import Pace
from nasjax.host import processor_name, processors


@dataclass(frozen=True)
class Target(ABC):
    """What all targets share.

    `batch` examples are run at a time. `networks` sub-networks are measured whole before the search: two thirds fit the
    model, a third tells its error. With `table` every distinct stage is timed once, and the model corrects their sum;
    without, `predictor` learns from whole networks alone. With `source`, another device's latencies (a CSV such as `nasjax
    latency` writes), these are corrected in place of a table: 10 to 20 `networks` will do. `file` keeps what was measured
    (JSON lines), so that it is not measured twice.
    """

    batch: int = 1
    networks: int = 24
    table: bool = True
    predictor: str = "gaussian_process"
    source: str | None = None
    file: str | None = None

    def __post_init__(self):
        _check_batch(self.batch)
        if self.networks < 6:
            raise ConfigError(f"hardware.networks must be at least 6, not {self.networks}")

    @abstractmethod
    def open(self) -> Device:
        """The device, ready to time networks. Raises ConfigError where it is not there."""


@dataclass(frozen=True)
class Timed(Target):
    """What is timed here: the median within `within` of itself (95 % sure), or `seconds` of repeats."""

    within: float = 0.02
    seconds: float = 10.0

    def __post_init__(self):
        super().__post_init__()
        _check_positive(within=self.within, seconds=self.seconds)

    @property
    def precision(self) -> Precision:
        return Precision(self.within, self.seconds)


@dataclass(frozen=True)
class Cpu(Timed):
    """This machine's processor with `threads` threads; 0: all that this process may use."""

    threads: int = 0

    def open(self) -> Device:
        here = processors()
        if not 0 <= self.threads <= here:
            raise ConfigError(f"hardware.threads={self.threads}: this process may use 0 (all) to {here} processors")
        if self.threads in (0, here) and jax.default_backend() == "cpu":
            pace = Pace(time.perf_counter)
            return Here(jax.devices("cpu")[0], processor_name(), here, self.precision, counter=counter_here(), pace=pace)
        return Process(self.threads or here, self.precision)


@dataclass(frozen=True)
class Gpu(Timed):
    """The first GPU that JAX sees."""

    def open(self) -> Device:
        try:
            device = jax.devices("gpu")[0]
        except RuntimeError:
            raise ConfigError("hardware=gpu: JAX sees no GPU here; hardware=cpu, or pip install nasjax[cuda]") from None
        return Here(device, device.device_kind, 0, self.precision)


@dataclass(frozen=True)
class Command(Target):
    """Any program: `command` is called with the file of an exported network (StableHLO) and prints milliseconds last."""

    command: str = ""
    timeout: float = 600.0
    table: bool = False
    networks: int = 60

    def __post_init__(self):
        super().__post_init__()
        _check_positive(timeout=self.timeout)

    def open(self) -> Device:
        if self.table:
            raise ConfigError("hardware=command takes whole networks: hardware.table must be false")
        return Program(self.command, self.timeout)


@dataclass(frozen=True)
class Csv:
    """Measured latencies: a file with a column for each gene, and `column` in milliseconds; nothing is measured here.

    An architecture in the file has that latency; others have what `predictor` learns from the file.
    """

    file: str = ""
    column: str = "latency"
    batch: int = 1
    predictor: str = "gaussian_process"

    def __post_init__(self):
        _check_batch(self.batch)


def _check_batch(batch: int) -> None:
    if batch < 1:
        raise ConfigError(f"hardware.batch must be at least 1, not {batch}")


def _check_positive(**numbers: float) -> None:
    for name, value in numbers.items():
        if not 0 < value < math.inf:
            raise ConfigError(f"hardware.{name} must be a finite number above 0, not {value}")


HARDWARE: Mapping[str, Any] = {"cpu": Cpu, "gpu": Gpu, "csv": Csv, "command": Command}
"""Every kind of target by name."""
