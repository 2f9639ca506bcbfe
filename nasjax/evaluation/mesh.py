"""Several devices, of this process or of several: what is measured is spread over them, and every one gets the results.

Sub-networks are spread where they are re-calibrated: a batch norm's moments are those of a batch, which cannot be cut apart.
Examples are spread where they are scored: sub-networks cost different amounts, examples do not. Which device does what never
depends on how many are asked for, so that a network's values do not depend on those that share its chunk.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from nasjax.evaluation.totals import merged

AXIS = "devices"

WHOLE, DIVIDED = PartitionSpec(), PartitionSpec(AXIS)
"""How arrays lie on the devices: all of them on each, or their first axis divided."""


def mesh(devices: Sequence[jax.Device] | None = None) -> Mesh | None:
    """The devices in a row; by default all of JAX's backend, of every process. None for this process's first alone."""
    devices = jax.devices() if devices is None else list(devices)
    return None if devices == jax.local_devices()[:1] else Mesh(np.array(devices), (AXIS,))


def everywhere(over: Mesh | None, tree: PyTree) -> PyTree:
    """Arrays, the same in every process, whole on every device."""
    return _placed(over, tree, WHOLE)


def parted(over: Mesh | None, tree: PyTree) -> PyTree:
    """Arrays, the same in every process, their first axis divided among the devices."""
    return _placed(over, tree, DIVIDED)


def _placed(over: Mesh | None, tree: PyTree, part: PartitionSpec) -> PyTree:
    if over is None:
        return jax.tree.map(jnp.asarray, tree)
    sharding = NamedSharding(over, part)

    def place(leaf: Any) -> jax.Array:
        if isinstance(leaf, jax.Array) and leaf.sharding == sharding:
            return leaf
        held = np.asarray(leaf)
        # Unlike `jax.device_put` it compares nothing between processes.
        return jax.make_array_from_callback(held.shape, sharding, lambda index: held[index])

    return jax.tree.map(place, tree)


def by_rows(over: Mesh | None, run: Callable[..., Any]) -> Callable[..., Any]:
    """`run(weights, archs, how many count, calibration inputs, host)`, each row on one device; results are on all."""
    if over is None:
        return run
    devices = over.size

    def spread(weights: Any, archs: Any, number: Any, calibration: Any, host: Any) -> Any:
        rows = len(archs)
        filled = jnp.concatenate([archs, jnp.repeat(archs[-1:], -rows % devices, axis=0)])

        def mine(weights: Any, archs: Any, number: Any, calibration: Any) -> Any:
            # In turn, so that those that count are as many on every device as can be.
            here = lax.axis_index(AXIS)
            own = archs.reshape(-1, devices, archs.shape[1])[:, here]
            found = run(weights, own, (number - here + devices - 1) // devices, calibration, host)
            every = lax.all_gather(found, AXIS, axis=1)
            return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:])[:rows], every)

        return _shared(over, mine, (WHOLE,) * 4)(weights, filled, number, calibration)

    return spread


def by_examples(over: Mesh | None, run: Callable[..., Any], add: bool) -> Callable[..., Any]:
    """`run(weights, archs, how many count, statistics, block, host)`, the block's batches divided among the devices.

    With `add` the totals of all devices are added up, else their outputs (pop, batches, …) are put together.
    """
    if over is None:
        return run

    def spread(*arguments: Any, host: Any) -> Any:
        def mine(*arguments: Any) -> Any:
            found = run(*arguments, host=host)
            if add:
                # Not `psum`: over several hosts it adds in an order that depends on a row's place.
                return merged(lax.all_gather(found, AXIS))
            return lax.all_gather(found, AXIS, axis=1, tiled=True)

        return _shared(over, mine, (WHOLE,) * 4 + (DIVIDED,))(*arguments)

    return spread


def _shared(over: Mesh, function: Callable[..., Any], parts: tuple[PartitionSpec, ...]) -> Callable[..., Any]:
    # Results are the same everywhere; JAX cannot prove it of loops whose length differs, so that it must not check.
    return jax.shard_map(function, mesh=over, in_specs=parts, out_specs=WHOLE, check_vma=False)
