"""Choice of the evaluation strategy by a rule: the one whose seconds of compiling and computing should be the fewest."""

from collections.abc import Sequence
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
    """CPU seconds of a strategy: for compiling, by a constant and a term for each thing compiled, and for computing 1e9
    multiply-accumulates."""

    start: float
    compiling: float
    computing: float


SPEEDS = {"masked": Speed(8.0, 0.003, 0.07), "switch": Speed(15.0, 0.75, 0.05), "prefix": Speed(15.0, 2.5, 0.035)}
"""Measured on a CPU (docs/results.md, "Evaluating a population"; `benchmarks/strategies.py`). `masked` compiles operations,
the others branches of stages. The networks of a search share a third of their work, which `prefix` does once."""


@dataclass(frozen=True)
class AutoConfig(ChoosingConfig):
    """The strategy that should be the fastest: on a CPU the least of `estimated_seconds`, on accelerators `masked`.

    Where that does not fit `memory_gb`, the next. `networks` is how many sub-networks are going to be measured; a search
    takes its `evaluations`, everything else `NETWORKS`.
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
        names, reason = list(STRATEGIES), ""
        if devices[0].platform == "cpu":
            networks = self.networks or NETWORKS
            seconds = estimated_seconds(net, task, calibration, len(devices), networks)
            names = sorted(seconds, key=lambda name: seconds[name])
            estimates = ", ".join(f"{name} {seconds[name]:.2g}" for name in names)
            reason = f" (estimated CPU seconds for {plural(networks, 'sub-network')}: {estimates})"
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
    net: SuperNet, task: Task, calibration: int, devices: int = 1, networks: int = NETWORKS
) -> dict[str, float]:
    """CPU seconds by strategy for so many random sub-networks on one core, compiling included.

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
        for name, (compiled, macs) in work.items()
        for speed in [SPEEDS[name]]
    }
