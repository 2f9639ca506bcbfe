"""Runners of sub-networks whose first stages have been run before."""

from dataclasses import dataclass

from jaxtyping import PyTree

from nasjax.supernets.runner import Subnet


@dataclass(frozen=True, eq=False)
class ResumedRun:
    """A `nasjax.tasks.Runner` whose stages before the repeated ones have returned `carry` for `inputs`."""

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
    """A task runs the network step by step, or on other inputs than the batch's."""


@dataclass(frozen=True, eq=False)
class FinishedRun:
    """A `nasjax.tasks.Runner` whose last stage has returned `carry` for `inputs`; raises NeedsNetwork for anything else."""

    inputs: PyTree
    carry: PyTree

    def __call__(self, inputs: PyTree) -> PyTree:
        return self._outputs(inputs)

    def encode(self, inputs: PyTree) -> PyTree:
        return self._outputs(inputs)

    def step(self, tokens: PyTree, carry: PyTree) -> tuple[PyTree, PyTree]:
        raise NeedsNetwork

    def _outputs(self, inputs: PyTree) -> PyTree:
        if inputs is not self.inputs:
            raise NeedsNetwork
        return self.carry
