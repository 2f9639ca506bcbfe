"""Population evaluation by masking: traced choices, with shared weights, every sub-network at the cost of the largest."""

from dataclasses import dataclass, replace

import jax
from jax.sharding import Mesh

from nasjax.errors import ConfigError
from nasjax.evaluation.memory import Needs, compiler_bytes, example_macs, network_bytes
from nasjax.evaluation.micro_batched import MicroBatched
from nasjax.evaluation.population import StrategyConfig
from nasjax.evaluation.programs import Programs, at_once, in_turn
from nasjax.supernets import SuperNet
from nasjax.supernets.forms import VMAPPED, Forms
from nasjax.tasks import Task

FULL_MACS = 1e9
"""Multiply-accumulates of a batch from which one sub-network keeps an accelerator busy. Not measured: a guess from one H200,
where a vmapped population of a full-size network (2e10 a batch) took about twenty times what memory bandwidth allows."""


@dataclass(frozen=True)
class MaskedConfig(StrategyConfig):
    """Runs every sub-network at the cost of the largest: for accelerators and small networks.

    Attributes:
      at_once: whether the sub-networks of a chunk run at once, by `vmap`, instead of one after the other; fewer if memory is
        too small. null: on accelerators, unless a batch of the largest one fills them.
      vmapped: the form of convolutions that run at once on accelerators: `library`, XLA's, in groups; `loop`, one
        after another; `products`, batched matrix products and sums of shifted products. Not measured yet.
    """

    at_once: bool | None = None
    vmapped: str = "library"

    def __post_init__(self):
        super().__post_init__()
        if self.vmapped not in VMAPPED:
            raise ConfigError(f"evaluator.vmapped={self.vmapped!r} must be one of {', '.join(VMAPPED)}")

    @property
    def forms(self) -> Forms:
        return replace(super().forms, vmapped=self.vmapped)

    def needs(self, net: SuperNet) -> Needs:
        return Needs(network_bytes(net), compiler_bytes(net), together=self.runs_at_once(net))

    def strategy(self, net: SuperNet, task: Task, spare: float, mesh: Mesh | None = None) -> Programs:
        return Programs(net, task, MicroBatched, at_once if self.runs_at_once(net) else in_turn, mesh)

    def runs_at_once(self, net: SuperNet) -> bool:
        """`at_once`, or the rule: not on CPUs, where it gains nothing and padding would cost, nor for large networks."""
        if self.at_once is not None:
            return self.at_once
        return jax.default_backend() != "cpu" and self.batch * example_macs(net, net.space.largest()) < FULL_MACS
