"""Population evaluation by masking: `vmap` over traced choices, one set of weights shared by all."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Int, PyTree

from nasjax.evaluation.evaluator import WayConfig
from nasjax.evaluation.looped import Looped, Run
from nasjax.evaluation.memory import Needs, compiler_bytes, network_bytes
from nasjax.evaluation.programs import Programs
from nasjax.supernets.stage import Choice, Stage, Statistics, SuperNet
from nasjax.tasks import ImageClassification


@dataclass(frozen=True)
class MaskedConfig(WayConfig):
    """All sub-networks of a chunk at once, each at the cost of the largest: for accelerators and small networks.

    At most `chunk` at once, fewer where the memory does not hold them or where fewer are quicker: full-size ones on a CPU
    run one by one.
    """

    def needs(self, net: SuperNet) -> Needs:
        return Needs(network_bytes(net), compiler_bytes(net, Masked), together=True)

    def way(self, net: SuperNet, task: ImageClassification, spare: float, mesh: Mesh | None = None) -> Programs:
        return Programs(net, task, Masked, at_once, mesh)


class Masked(Looped):
    """A super-network whose stages mask what a traced architecture does not have."""

    def told(self, stage: Stage, choice: Choice) -> tuple[Int[Array, " genes"], Bool[Array, ""]]:
        return jnp.asarray(choice[len(choice) - len(stage.genes) :], jnp.int32), jnp.asarray(stage.skipped(choice))

    def run(self, graph: nnx.GraphDef, stages: list[Stage]) -> Run:
        return partial(_run, graph, any(stage.gate is not None for stage in stages))


@partial(jax.jit, static_argnums=(0, 1))
def _run(graph: nnx.GraphDef, gated: bool, carry: PyTree, row: tuple[Any, Any, Any]) -> tuple[PyTree, Statistics]:
    """One stage, of `row`: its weights, its choice and whether it is skipped, its statistics."""
    weights, (choice, skipped), statistics = row
    stage = nnx.merge(graph, weights)
    run = stage(carry, choice, statistics)
    if not gated:
        return run
    return jax.tree.map(lambda new, old: jnp.where(skipped, old, new), run, (carry, statistics or stage.stored()))


def at_once(function: Callable[..., Any], number: Any, *populations: Any) -> Any:
    """All rows in one, those that do not count too."""
    if len(jax.tree.leaves(populations)[0]) > 1:
        return jax.vmap(function)(*populations)
    # One alone needs no batching, which takes half of the time until a program is compiled.
    alone = function(*jax.tree.map(lambda leaf: leaf[0], populations))
    return jax.tree.map(lambda leaf: leaf[None], alone)
