"""The loss of a step: the weighted mean of its sub-networks' losses on a batch."""

import inspect
from dataclasses import fields
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, PyTree

from nasjax.errors import ConfigError
from nasjax.supernets import SuperNet
from nasjax.supernets.precision import in_float32
from nasjax.tasks import Task
from nasjax.tasks.divergences import Divergence
from nasjax.tasks.image_augmentation import Augmentation
from nasjax.training.base import FIXED, Subnets
from nasjax.types import Population


def check_divergence(task: Task, divergence: Divergence | None) -> None:
    """Raises ConfigError for a task of one's own whose loss takes no divergence, where a method has one."""
    if divergence is not None and "divergence" not in inspect.signature(task.loss).parameters:
        raise ConfigError(
            f"this trainer has a divergence of its own, which the loss of the task {task.origin['name']} does not take: "
            "let loss(outputs, targets, teacher, divergence) call it, or choose another trainer"
        )


def check_augmentation(task: Task, settings: Augmentation) -> None:
    """Raises ConfigError for augmentations of images that the task does not have."""
    asked = [f.name for f in fields(Augmentation) if getattr(settings, f.name) != f.default]
    if asked and not task.augments:
        names = ", ".join(f"trainer.{name}" for name in asked)
        raise ConfigError(f"the task {task.origin['name']} has no augmentation: leave {names} out")


def step_loss(
    net: SuperNet,
    task: Task,
    inputs: PyTree,
    targets: PyTree,
    subnets: Subnets,
    divergence: Divergence | None = None,
    fixed: PyTree | None = None,
) -> Float[Array, ""]:
    """The weighted mean of the sub-networks' losses on a batch; batch norms use the batch's statistics.

    `fixed`: the outputs of the teacher whose weights do not change. `divergence`: see `TrainerConfig`.
    """
    static = [in_float32(net.forward(inputs, arch, None)[0]) for arch in subnets.static]
    traced = None
    if len(subnets.traced):
        traced = in_float32(jax.vmap(lambda arch: net.forward(inputs, arch, None)[0])(subnets.traced))
    total: Any = 0.0
    for teacher in dict.fromkeys((*subnets.static_teachers, *([] if traced is None else [subnets.traced_teacher]))):
        # The losses of one teacher's students are computed at once.
        rows = [i for i, other in enumerate(subnets.static_teachers) if other == teacher]
        students = [jax.tree.map(lambda leaf: leaf[None], static[i]) for i in rows]
        weights = [subnets.weights[i] for i in rows]
        if traced is not None and subnets.traced_teacher == teacher:
            students.append(traced)
            weights += subnets.weights[len(static) :]
        outputs = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *students)
        taught = fixed if teacher == FIXED else None if teacher is None else static[teacher]
        losses = jax.vmap(lambda one, taught=taught: _distilled(task, one, targets, taught, divergence))(outputs)
        if teacher == FIXED:
            losses = (losses + jax.vmap(lambda one: task.loss(one, targets).mean())(outputs)) / 2
        total += (losses * np.array(weights, np.float32)).sum()
    return total / sum(subnets.weights)


def _distilled(
    task: Task, outputs: PyTree, targets: PyTree, teacher: PyTree | None, divergence: Divergence | None
) -> Float[Array, ""]:
    """The mean loss against the teacher's outputs; against the targets without a teacher."""
    taught = lax.stop_gradient(teacher)
    if teacher is None or divergence is None:
        return task.loss(outputs, targets, taught).mean()
    loss: Any = task.loss  # With a divergence: checked before.
    return loss(outputs, targets, taught, divergence).mean()


def losses_of(net: SuperNet, task: Task, inputs: PyTree, targets: PyTree, archs: Population) -> Float[Array, " pop"]:
    """The losses of sub-networks on a batch, without a gradient; batch norms use the batch's statistics."""

    def loss(arch: Any) -> Float[Array, ""]:
        return task.loss(in_float32(net.forward(inputs, arch, None)[0]), targets).mean()

    return lax.stop_gradient(jax.vmap(loss)(archs))
