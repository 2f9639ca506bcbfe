"""One sub-network as a task runs it: its outputs, or step by step."""

from dataclasses import dataclass
from typing import Any, Protocol

from jaxtyping import PyTree

from nasjax.supernets.elastic import Recalibrate
from nasjax.supernets.stage import Choice, Statistics
from nasjax.supernets.supernet import HostOptions


class Network(Protocol):
    """What runs the stages of a super-network: the network itself, or one that micro-batches or branches."""

    @property
    def first_repeated(self) -> int: ...

    def prepare(self, inputs: PyTree, host: HostOptions) -> PyTree: ...

    def forward(
        self,
        carry: PyTree,
        arch: Choice,
        statistics: tuple[Statistics, ...] | Recalibrate | None,
        start: int = 0,
        stop: int | None = None,
    ) -> tuple[PyTree, tuple[Statistics, ...]]: ...


@dataclass(frozen=True, eq=False)
class Subnet:
    """A `nasjax.tasks.Runner`: one architecture of a network with its batch-norm statistics and host options."""

    network: Network
    arch: Choice
    statistics: tuple[Statistics, ...]
    host: HostOptions = ()

    def __call__(self, inputs: PyTree) -> PyTree:
        return self._forward(self.network.prepare(inputs, self.host))

    def encode(self, inputs: PyTree) -> PyTree:
        return self._forward(self.network.prepare(inputs, self.host), stop=self.network.first_repeated)

    def step(self, tokens: PyTree, carry: PyTree) -> tuple[PyTree, PyTree]:
        return self._forward((tokens, carry), start=self.network.first_repeated)

    def _forward(self, carry: PyTree, start: int = 0, stop: int | None = None) -> Any:
        return self.network.forward(carry, self.arch, self.statistics, start, stop)[0]


@dataclass(frozen=True, eq=False)
class Resumed:
    """A `nasjax.tasks.Runner` whose first stages have run on `inputs` already, and left `carry`."""

    rest: Subnet
    inputs: PyTree
    carry: PyTree

    def __call__(self, inputs: PyTree) -> PyTree:
        if inputs is not self.inputs:
            return self.rest(inputs)
        first = self.rest.network.first_repeated
        return self.rest._forward(self.carry, start=first)

    def encode(self, inputs: PyTree) -> PyTree:
        return self.carry if inputs is self.inputs else self.rest.encode(inputs)

    def step(self, tokens: PyTree, carry: PyTree) -> tuple[PyTree, PyTree]:
        return self.rest.step(tokens, carry)


class NeedsNetwork(Exception):
    """A task runs the network on other inputs than the batch's, or step by step."""


@dataclass(frozen=True, eq=False)
class Ended:
    """A `nasjax.tasks.Runner` all of whose stages have run on `inputs` already, and left `carry`; for nothing else."""

    inputs: PyTree
    carry: PyTree

    def __call__(self, inputs: PyTree) -> PyTree:
        return self._left(inputs)

    def encode(self, inputs: PyTree) -> PyTree:
        return self._left(inputs)

    def step(self, tokens: PyTree, carry: PyTree) -> tuple[PyTree, PyTree]:
        raise NeedsNetwork

    def _left(self, inputs: PyTree) -> PyTree:
        if inputs is not self.inputs:
            raise NeedsNetwork
        return self.carry
