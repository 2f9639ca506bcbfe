"""`python several_devices.py WAY [ADDRESS NUMBER INDEX]`: what four devices, or two of each of several processes, measure.

The last line is what they and one device alone found, as JSON.
"""

import json
import os
import sys

os.environ["JAX_PLATFORMS"] = "cpu"
WAY, *JOINED = sys.argv[1:]
devices = "2" if JOINED else "4"
os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={devices}"

import jax  # noqa: E402
import numpy as np  # noqa: E402
from tiny import architectures, easy_task, tiny_network  # noqa: E402

from nasjax.evaluation import EVALUATORS  # noqa: E402

jax.config.update("jax_compilation_cache_dir", os.environ["NASJAX_TEST_CACHE"])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
if JOINED:
    jax.distributed.initialize(JOINED[0], int(JOINED[1]), int(JOINED[2]))

NET = tiny_network(depths=((1, 2), (1,)), kernels=(3,), expands=(1, 2))
TASK = easy_task(sizes=(96, 90, 30))
ARCHS = np.asarray(NET.space.canonical(np.array(architectures(NET.space, 3), np.int32)))
ASKED = [[0], [2], [1, 1, 2], [0, 1, 2, 3, 4], [4, 3, 2, 1, 0]]
"""One, duplicates, more than there are devices, and numbers that these do not divide."""


def measured(way, devices=None):
    """Metrics of every population of ASKED, and the first network's statistics."""
    settings = {"masked": {"at_once": True}}.get(way, {})  # As on accelerators; `switch` runs sub-networks in turn.
    bound = EVALUATORS[way](batch=16, calibration_examples=32, chunk=5, **settings).bind(NET, TASK, devices=devices)
    found = [{name: column.tolist() for name, column in bound(ARCHS[rows]).items()} for rows in ASKED]
    leaves = jax.tree.leaves(bound.statistics(tuple(map(int, ARCHS[2]))))
    return {"found": found, "statistics": [np.asarray(leaf).tolist() for leaf in leaves[:6]]}


if __name__ == "__main__":
    both = {WAY: [measured(WAY), measured(WAY, jax.local_devices()[:1])]}
    print(json.dumps({"processes": jax.process_count(), "devices": jax.device_count(), "ways": both}))
