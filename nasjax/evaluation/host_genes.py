"""Elastic resolution: the one gene that no stage reads. A population is grouped by it, and pictures are scaled to it.

What is scaled is the task's picture, cut already. Once-for-All scales and cuts the original anew for each resolution: other
pixels, by 4 to 7 of 255 on average on two photographs, at 160 and 192 instead of 224.
"""

from collections.abc import Iterator

import jax
import numpy as np
from jaxtyping import Array, Float, Int

from nasjax.supernets.stage import SuperNet
from nasjax.types import Population


def by_resolution(net: SuperNet, archs: Population) -> Iterator[tuple[int | None, Int[np.ndarray, " rows"]]]:
    """Each resolution that occurs, with the rows of `archs` that have it; (None, all rows) where it is not elastic."""
    sizes = np.array([net.resolution(arch) or 0 for arch in np.asarray(archs)])
    for size in np.unique(sizes):
        yield int(size) or None, np.flatnonzero(sizes == size)


def resized(
    images: Float[Array | np.ndarray, "*batches height width channels"], size: int | None
) -> Float[Array | np.ndarray, "*batches size size channels"]:
    """Pictures scaled to `size` x `size` pixels, bilinear and anti-aliased; as they are for None or where they have it."""
    if size is None or images.shape[-3:-1] == (size, size):
        return images
    return jax.image.resize(images, (*images.shape[:-3], size, size, images.shape[-1]), "linear")
