"""Sub-networks some of whose stages have run already, as a task runs them."""

from dataclasses import dataclass

from jaxtyping import PyTree

from nasjax.supernets.runner import Subnet


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
        return self.rest.run_stages(self.carry, start=first)

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
