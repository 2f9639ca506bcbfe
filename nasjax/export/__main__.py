"""Loads exported networks in a process of its own: `python -m nasjax.export PLACE FILE…`, PLACE with `images.npy`."""

import sys
from pathlib import Path

import jax
import numpy as np
from flax import nnx

from nasjax.export import KINDS
from nasjax.supernets.folders import load


def run_folder(folder: Path, images: np.ndarray) -> jax.Array:
    """What an extracted network answers, its weights no constants of the program."""
    graph, weights = nnx.split(load(folder))
    return jax.jit(lambda weights, images: nnx.merge(graph, weights)(images))(weights, images)


if __name__ == "__main__":
    place, *files = map(Path, sys.argv[1:])
    images = np.load(place / "images.npy")
    for i, file in enumerate(files):
        run = run_folder if file.is_dir() else KINDS[file.suffix].run
        np.save(place / f"{i}.npy", np.asarray(run(file, images)))
