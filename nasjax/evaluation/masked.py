"""Population evaluation by masking: traced choices, with shared weights, every sub-network at the cost of the largest."""

from dataclasses import dataclass

import jax
from jax.sharding import Mesh

from nasjax.evaluation.memory import Needs, compiler_bytes, network_bytes
from nasjax.evaluation.micro_batched import MicroBatched
from nasjax.evaluation.population import StrategyConfig
from nasjax.evaluation.programs import Programs, at_once, in_turn
from nasjax.supernets import SuperNet
from nasjax.tasks import Task


@dataclass(frozen=True)
class MaskedConfig(StrategyConfig):
    """Runs every sub-network at the cost of the largest: for accelerators and small networks.

    On accelerators at most `chunk` at once, fewer if memory is too small; on a CPU one after the other.
    """

    def needs(self, net: SuperNet) -> Needs:
        return Needs(network_bytes(net), compiler_bytes(net), together=runs_at_once())

    def strategy(self, net: SuperNet, task: Task, spare: float, mesh: Mesh | None = None) -> Programs:
        return Programs(net, task, MicroBatched, at_once if runs_at_once() else in_turn, mesh)


def runs_at_once() -> bool:
    """Whether sub-networks run at once by `vmap`: not on a CPU, where it gains nothing, and padding rows would cost."""
    return jax.default_backend() != "cpu"
