"""Scores of one batch by one sub-network: within a program, or on the host for tasks that need NumPy."""

from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import PyTree

from nasjax.evaluation.blocks import Block
from nasjax.evaluation.mesh import divide
from nasjax.evaluation.totals import Totals, batch_totals, in_float64
from nasjax.supernets.precision import in_float32
from nasjax.tasks import Runner, Task


def place(over: Mesh | None, block: Block, on_host: bool) -> Block:
    """The block divided among the devices; of a task on the host only the inputs."""
    if on_host:
        return block._replace(inputs=divide(over, block.inputs))
    return divide(over, block)


def program_arguments(block: Block, on_host: bool) -> Block:
    """The part of a placed block, or batch, that `score` reads: of a task on the host only the inputs."""
    return Block(block.inputs, (), ()) if on_host else block  # type: ignore[arg-type]


def score(task: Task, run: Runner, batch: Block) -> Any:
    """The batch's totals; for a task on the host its outputs, for `finished_totals`."""
    outputs = in_float32(task.outputs(run, batch.inputs))
    return outputs if task.on_host else batch_totals(task.statistics(outputs, batch.targets), batch.weights)


def finished_totals(task: Task, scored: PyTree, batch: Block) -> Totals:
    """The batch's totals in float64 on the host, from what `score` has returned."""
    if not task.on_host:
        return in_float64(scored)
    outputs, targets, weights = jax.tree.map(np.asarray, (scored, batch.targets, batch.weights))
    return batch_totals(np.asarray(task.statistics(outputs, targets), np.float64), weights)
