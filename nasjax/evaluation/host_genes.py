"""Grouping of populations by host genes, which change the shapes of inputs: each group has separate programs."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Int

from nasjax.supernets import SuperNet
from nasjax.supernets.supernet import HostOptions
from nasjax.types import Population


def by_host(net: SuperNet, archs: Population) -> Iterator[tuple[HostOptions, Int[np.ndarray, " rows"]]]:
    """Every combination of host options in `archs`, and the rows that have it; without host genes, one group of all rows."""
    archs = np.asarray(archs)
    columns = archs[:, list(net.host_columns())]
    if not columns.shape[1]:
        yield (), np.arange(len(archs))
        return
    for options in np.unique(columns, axis=0):
        rows = np.flatnonzero((columns == options).all(1))
        yield net.host(archs[rows[0]]), rows
