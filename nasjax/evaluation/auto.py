"""Choice of the evaluation strategy by a rule: the one whose seconds of compiling and computing should be the fewest."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Self

import jax

from nasjax.errors import ConfigError
from nasjax.evaluation.memory import TooLarge, example_macs, operations
from nasjax.evaluation.population import PopulationEvaluator
from nasjax.evaluation.strategies import STRATEGIES, ChoosingConfig
from nasjax.evaluation.switch import branches
from nasjax.supernets import SuperNet
from nasjax.tasks import Task
from nasjax.words import plural

NETWORKS = 128
"""The number of sub-networks that are assumed to be measured where it is not known."""


class Speed(NamedTuple):
    """Seconds of a strategy: for compiling, by a constant and a term for each thing compiled, and for computing 1e9
    multiply-accumulates."""

    start: float
    compiling: float
    computing: float


SPEEDS = {"masked": Speed(8.0, 0.003, 0.07), "switch": Speed(15.0, 0.75, 0.05), "prefix": Speed(15.0, 2.5, 0.035)}
"""CPU seconds, measured (docs/results.md, "Evaluating a population"; `benchmarks/strategies.py`). `masked` compiles
operations, the others branches of stages. The networks of a search share a third of their work, which `prefix` does once."""

ACCELERATOR_SPEEDS = {"masked": Speed(8.0, 0.004, 1.3e-3), "prefix": Speed(15.0, 2.2, 0.56e-3)}
"""Seconds on the clock, from one run on an H200 (docs/results.md, "On a GPU": 43 and 17 s for 9,000 operations and 14,000e9
multiply-accumulates, 98 and 4.8 s for 38 branches and 8,600e9), where one processor compiled,
and networks were masked at once. `switch` was still compiling after 150 s: it is the last resort."""


@dataclass(frozen=True)
class AutoConfig(ChoosingConfig):
    """The strategy with the least `estimated_seconds`; where that does not fit `memory_gb`, the next.

    `networks` is how many sub-networks are going to be measured; a search takes its `evaluations`, everything else
    `NETWORKS`.
    """

    networks: int | None = None

    def __post_init__(self):
        super().__post_init__()
        if self.networks is not None and self.networks < 1:
            raise ConfigError(f"evaluator.networks must be at least 1, not {self.networks}")

    def expecting(self, networks: int | None) -> Self:
        return self if self.networks is not None else replace(self, networks=networks)

    def bind(
        self, net: SuperNet, task: Task, split: str = "validation", devices: Sequence[jax.Device] | None = None
    ) -> PopulationEvaluator:
        devices = jax.devices() if devices is None else devices
        calibration = self.calibration_examples if net.has_norms else 0
        networks, on_cpu = self.networks or NETWORKS, devices[0].platform == "cpu"
        speeds = SPEEDS if on_cpu else ACCELERATOR_SPEEDS
        seconds = estimated_seconds(net, task, calibration, len(devices), networks, speeds)
        names = sorted(seconds, key=lambda name: seconds[name])
        kind = "CPU seconds" if on_cpu else "seconds"
        estimates = ", ".join(f"{name} {seconds[name]:.2g}" for name in names)
        reason = f" (estimated {kind} for {plural(networks, 'sub-network')}: {estimates})"
        names += [name for name in STRATEGIES if name not in names]
        refused: list[TooLarge] = []
        for name in names:
            try:
                evaluator = self.of_strategy(name).bind(net, task, split, devices)
                evaluator.remark = f"evaluator=auto: {name}{reason}"
                return evaluator
            except TooLarge as error:
                refused.append(error)
        raise refused[0]


def estimated_seconds(
    net: SuperNet,
    task: Task,
    calibration: int,
    devices: int = 1,
    networks: int = NETWORKS,
    speeds: Mapping[str, Speed] = SPEEDS,
) -> dict[str, float]:
    """Seconds by strategy for so many random sub-networks, compiling included: of one core, or on the clock of accelerators.

    `calibration`: examples that each of them is re-calibrated on. Without `prefix` where stages repeat, which it does not
    share, and for several devices, of which it uses one.
    """
    largest, smallest = (example_macs(net, arch) for arch in (net.space.largest(), net.space.smallest()))
    examples = networks * (min(calibration, len(task.train)) + len(task.validation) * task.beams)
    # Masked networks cost as much as the largest, others as much as the mean of it and the smallest.
    work = {"masked": (operations(net), largest), "switch": (branches(net), (largest + smallest) / 2)}
    if net.first_repeated == len(net.stages) and devices == 1:
        work["prefix"] = work["switch"]
    return {
        name: speed.start + speed.compiling * compiled + speed.computing * examples * macs / 1e9
        for name, speed in speeds.items()
        if name in work
        for compiled, macs in [work[name]]
    }
