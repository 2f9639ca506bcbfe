"""Runs exported networks: `python -m nasjax.export FOLDER` reads `inputs.pickle` in FOLDER, with the files of each network
and the inputs, and writes `0.pickle`, …"""

import pickle
import sys
from pathlib import Path

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array, PyTree

from nasjax.export import KINDS
from nasjax.supernets import load


def run_folder(folder: Path, inputs: PyTree[np.ndarray]) -> PyTree[Array]:
    """The outputs of an extracted network in a folder; weights are arguments of the program, not constants."""
    graph, weights = nnx.split(load(folder))
    return jax.jit(lambda weights, inputs: nnx.merge(graph, weights)(inputs))(weights, inputs)


if __name__ == "__main__":
    place = Path(sys.argv[1])
    written, inputs = pickle.loads((place / "inputs.pickle").read_bytes())
    for i, files in enumerate(written):
        first = files[0]
        outputs = run_folder(first, inputs) if first.is_dir() else KINDS[first.suffix].run(files, inputs)
        (place / f"{i}.pickle").write_bytes(pickle.dumps(jax.tree.map(np.asarray, outputs)))
