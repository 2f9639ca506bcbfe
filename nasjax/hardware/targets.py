"""Targets: the settings of the hardware that networks are searched for."""

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import jax

from nasjax.errors import ConfigError
from nasjax.hardware.devices import CommandDevice, Device, LocalDevice, WorkerDevice
from nasjax.hardware.energy import optional_energy_counter
from nasjax.hardware.measurement import Precision
from nasjax.hardware.pace import Pace
from nasjax.host import processor_name, processors

MIN_NETWORKS = 6
"""Smallest number of measured networks for a latency model, those held out included."""


@dataclass(frozen=True)
class Target(ABC):
    """Settings of all targets on which networks are timed.

    `batch`: examples in one call of a network. `networks`: number of whole sub-networks timed before the search; two thirds
    fit the latency model, a third is held out for its errors. `table`: times every distinct stage once, and calibrates the
    sum of a network's stages on the whole networks; otherwise `predictor` learns from whole networks alone. `source`:
    latencies of another device (a CSV such as `nasjax latency` writes), calibrated in place of a table; 10 to 20 `networks`
    are then enough. `file` stores measurements (JSON lines), so that none is repeated.
    """

    batch: int = 1
    networks: int = 24
    table: bool = True
    predictor: str = "gaussian_process"
    source: str | None = None
    file: str | None = None

    def __post_init__(self):
        _check_batch(self.batch)
        if self.networks < MIN_NETWORKS:
            raise ConfigError(f"hardware.networks must be at least {MIN_NETWORKS}, not {self.networks}")

    @abstractmethod
    def open(self) -> Device:
        """The device, ready to time networks. Raises ConfigError if it is not there."""


@dataclass(frozen=True)
class LocalTarget(Target):
    """Settings of targets that nasjax times itself.

    A network is repeated until the 95 % confidence interval of its median is within `within` of the median (a share), or for
    `seconds`.
    """

    within: float = 0.02
    seconds: float = 10.0

    def __post_init__(self):
        super().__post_init__()
        _check_positive(within=self.within, seconds=self.seconds)

    @property
    def precision(self) -> Precision:
        return Precision(self.within, self.seconds)


@dataclass(frozen=True)
class Cpu(LocalTarget):
    """The processor of this machine, with `threads` threads (0: all processors that this process may use)."""

    threads: int = 0

    def open(self) -> Device:
        available = processors()
        if not 0 <= self.threads <= available:
            raise ConfigError(f"hardware.threads={self.threads}: this process may use 0 (all) to {available} processors")
        if self.threads in (0, available) and jax.default_backend() == "cpu":
            cpu, counter, pace = jax.devices("cpu")[0], optional_energy_counter(), Pace(time.perf_counter)
            return LocalDevice(cpu, processor_name(), available, self.precision, counter=counter, pace=pace)
        return WorkerDevice(self.threads or available, self.precision)


@dataclass(frozen=True)
class Gpu(LocalTarget):
    """The first GPU that JAX sees."""

    def open(self) -> Device:
        try:
            device = jax.devices("gpu")[0]
        except RuntimeError:
            raise ConfigError("hardware=gpu: JAX sees no GPU here; use hardware=cpu, or pip install nasjax[cuda]") from None
        return LocalDevice(device, device.device_kind, 0, self.precision)


@dataclass(frozen=True)
class CommandTarget(Target):
    """An external program: `command` is called with an exported network's file (StableHLO) and prints milliseconds last.

    It may take `timeout` seconds for a network.
    """

    command: str = ""
    timeout: float = 600.0
    table: bool = False
    networks: int = 60

    def __post_init__(self):
        super().__post_init__()
        _check_positive(timeout=self.timeout)

    def open(self) -> Device:
        if self.table:
            raise ConfigError("hardware=command times whole networks only: hardware.table must be false")
        return CommandDevice(self.command, self.timeout)


@dataclass(frozen=True)
class Csv:
    """Latencies recorded in a `file`: a column for each gene, and `column` in milliseconds of a `batch`. Nothing is timed.

    Architectures in the file have their recorded latency; `predictor` learns from the file to estimate all others.
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


def _check_positive(**settings: float) -> None:
    for name, value in settings.items():
        if not 0 < value < math.inf:
            raise ConfigError(f"hardware.{name} must be a finite number above 0, not {value}")


HARDWARE: Mapping[str, type[Target] | type[Csv]] = {"cpu": Cpu, "gpu": Gpu, "csv": Csv, "command": CommandTarget}
"""All targets by name."""
