"""Host genes change the shapes of inputs: a population is grouped by their options, each group with programs of its own."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Int

from nasjax.supernets import SuperNet
from nasjax.supernets.supernet import HostOptions
from nasjax.types import Population


def by_host(net: SuperNet, archs: Population) -> Iterator[tuple[HostOptions, Int[np.ndarray, " rows"]]]:
    """Each combination of host options that occurs, with the rows of `archs` that have it; one group without host genes."""
    archs = np.asarray(archs)
    columns = archs[:, list(net.host_columns())]
    if not columns.shape[1]:
        yield (), np.arange(len(archs))
        return
    for options in np.unique(columns, axis=0):
        rows = np.flatnonzero((columns == options).all(1))
        yield net.host(archs[rows[0]]), rows
