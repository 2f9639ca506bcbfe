"""Runs one sub-network for a task: all stages, or step by step for decoding."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import PyTree

from nasjax.supernets.elastic import Recalibrate
from nasjax.supernets.stage import Choice, Statistics
from nasjax.supernets.supernet import HostOptions


@runtime_checkable
class StagedNetwork(Protocol):
    """Runs the stages of a super-network: the network itself, or a wrapper with micro-batches or branches."""

    @property
    def first_repeated(self) -> int: ...

    def prepare(self, inputs: PyTree, host: HostOptions) -> PyTree: ...

    def forward(
        self,
        carry: PyTree,
        arch: Choice,
        statistics: tuple[Statistics, ...] | Recalibrate | None,
        start: int | None = None,
        stop: int | None = None,
    ) -> tuple[PyTree, tuple[Statistics, ...]]: ...


@dataclass(frozen=True, eq=False)
class Subnet:
    """A `nasjax.tasks.Runner`: one architecture of a network with its batch-norm statistics and host options."""

    network: StagedNetwork
    arch: Choice
    statistics: tuple[Statistics, ...]
    host: HostOptions = ()

    def __call__(self, inputs: PyTree) -> PyTree:
        return self.run_stages(self.network.prepare(inputs, self.host))

    def encode(self, inputs: PyTree) -> PyTree:
        return self.run_stages(self.network.prepare(inputs, self.host), stop=self.network.first_repeated)

    def step(self, tokens: PyTree, carry: PyTree) -> tuple[PyTree, PyTree]:
        return self.run_stages((tokens, carry), start=self.network.first_repeated)

    def run_stages(self, carry: PyTree, start: int | None = None, stop: int | None = None) -> PyTree:
        """Runs stages `start` to `stop`; returns the carry of the last one."""
        return self.network.forward(carry, self.arch, self.statistics, start, stop)[0]
