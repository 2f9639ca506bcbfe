"""Population evaluation by masking: `vmap` over traced choices, with shared weights."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
from jax.sharding import Mesh

from nasjax.evaluation.memory import Needs, compiler_bytes, network_bytes
from nasjax.evaluation.micro_batched import MicroBatched
from nasjax.evaluation.population import StrategyConfig
from nasjax.evaluation.programs import Programs
from nasjax.supernets import SuperNet
from nasjax.tasks import Task


@dataclass(frozen=True)
class MaskedConfig(StrategyConfig):
    """Runs the sub-networks of a chunk at once, each at the cost of the largest: for accelerators and small networks.

    At most `chunk` at once, fewer if memory is too small, or if that is faster: full-size networks on a CPU run one by one.
    """

    def needs(self, net: SuperNet) -> Needs:
        return Needs(network_bytes(net), compiler_bytes(net), together=True)

    def strategy(self, net: SuperNet, task: Task, spare: float, mesh: Mesh | None = None) -> Programs:
        return Programs(net, task, MicroBatched, at_once, mesh)


def at_once(function: Callable[..., Any], number: Any, *populations: Any) -> Any:
    """`function` of all rows by one `vmap`, padding rows (from `number` on) included."""
    if len(jax.tree.leaves(populations)[0]) > 1:
        return jax.vmap(function)(*populations)
    # A single row is not vmapped: the program compiles in half the time.
    result = function(*jax.tree.map(lambda leaf: leaf[0], populations))
    return jax.tree.map(lambda leaf: leaf[None], result)
