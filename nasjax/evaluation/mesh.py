"""Several devices, of one process or of several: they share the work of a measurement, and all get the results.

Re-calibration divides the sub-networks among the devices, since a batch norm needs the moments of a whole batch. Scoring
divides the examples, which all cost the same, unlike sub-networks. How work is divided does not depend on the number of
architectures, so that a network's values do not depend on the others in its chunk.
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

REPLICATED, DIVIDED = PartitionSpec(), PartitionSpec(AXIS)
"""How arrays lie on the devices: a copy on each, or their first axis divided."""


def mesh(devices: Sequence[jax.Device] | None = None) -> Mesh | None:
    """The devices as a mesh of one axis; by default all of JAX's backend, of every process. None for the first local one."""
    devices = jax.devices() if devices is None else list(devices)
    return None if devices == jax.local_devices()[:1] else Mesh(np.array(devices), (AXIS,))


def replicate(over: Mesh | None, tree: PyTree) -> PyTree:
    """Puts arrays, equal in every process, on every device."""
    return _place(over, tree, REPLICATED)


def divide(over: Mesh | None, tree: PyTree) -> PyTree:
    """Divides arrays, equal in every process, among the devices along their first axis."""
    return _place(over, tree, DIVIDED)


def _place(over: Mesh | None, tree: PyTree, spec: PartitionSpec) -> PyTree:
    if over is None:
        return jax.tree.map(jnp.asarray, tree)
    sharding = NamedSharding(over, spec)

    def place(leaf: Any) -> jax.Array:
        if isinstance(leaf, jax.Array) and leaf.sharding == sharding:
            return leaf
        values = np.asarray(leaf)
        # Unlike `jax.device_put`, this compares nothing between processes.
        return jax.make_array_from_callback(values.shape, sharding, lambda index: values[index])

    return jax.tree.map(place, tree)


def by_rows(over: Mesh | None, run: Callable[..., Any]) -> Callable[..., Any]:
    """`run(weights, archs, number, calibration, host)` with the rows divided among the devices; results are on all.

    Only the first `number` rows need results.
    """
    if over is None:
        return run
    devices = over.size

    def spread(weights: Any, archs: Any, number: Any, calibration: Any, host: Any) -> Any:
        rows = len(archs)
        padded = jnp.concatenate([archs, jnp.repeat(archs[-1:], -rows % devices, axis=0)])

        def on_device(weights: Any, archs: Any, number: Any, calibration: Any) -> Any:
            # Dealt out in turn, so that the rows before `number` are spread evenly.
            index = lax.axis_index(AXIS)
            own_rows = archs.reshape(-1, devices, archs.shape[1])[:, index]
            results = run(weights, own_rows, (number - index + devices - 1) // devices, calibration, host)
            gathered = lax.all_gather(results, AXIS, axis=1)
            return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:])[:rows], gathered)

        return _shard_map(over, on_device, (REPLICATED,) * 4)(weights, padded, number, calibration)

    return spread


def by_examples(over: Mesh | None, run: Callable[..., Any], add: bool) -> Callable[..., Any]:
    """`run(weights, archs, number, statistics, block, host)` with the block's batches divided among the devices.

    With `add`, results are `Totals`, which are summed over devices; else outputs (pop, batches, …), which are concatenated.
    """
    if over is None:
        return run

    def spread(*arguments: Any, host: Any) -> Any:
        def on_device(*arguments: Any) -> Any:
            results = run(*arguments, host=host)
            if add:
                # Over several hosts, `psum` adds in an order that depends on a row's position.
                return merged(lax.all_gather(results, AXIS))
            return lax.all_gather(results, AXIS, axis=1, tiled=True)

        return _shard_map(over, on_device, (REPLICATED,) * 4 + (DIVIDED,))(*arguments)

    return spread


def _shard_map(over: Mesh, function: Callable[..., Any], in_specs: tuple[PartitionSpec, ...]) -> Callable[..., Any]:
    """`function` on every device, its results replicated."""
    # JAX cannot prove that results are equal on all devices where the lengths of loops differ: `check_vma` is off.
    return jax.shard_map(function, mesh=over, in_specs=in_specs, out_specs=REPLICATED, check_vma=False)
