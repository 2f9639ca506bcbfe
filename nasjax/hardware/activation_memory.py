"""Peak activation memory: which tensors of a jaxpr are stored in memory, and from when to when."""

from collections.abc import Iterable, Mapping
from math import prod
from typing import Any

from jax.extend.core import Literal

from nasjax.jaxprs import inner_jaxprs

STORED = ("dot_general", "conv_general_dilated")
"""Primitives whose results are stored in memory; results of loops and branches are too."""

NO_TENSORS: frozenset[int] = frozenset()


def array_bytes(arrays: Iterable[Any]) -> int:
    """Bytes of arrays, or of shapes with a dtype."""
    return sum(prod(array.shape) * array.dtype.itemsize for array in arrays)


def jaxpr_memory(jaxpr: Any, weights: int) -> int:
    """Peak bytes of activations; the last `weights` arguments of the jaxpr are weights and do not count.

    Operands and results of matrix products and convolutions, and the jaxpr's own inputs and results, are stored from when
    they are computed until they are last read. Everything between them is assumed fused. As in `jaxpr_macs`, the default
    platform's branch counts.
    """
    inputs = list(jaxpr.invars[: len(jaxpr.invars) - weights])
    lifetimes = _Lifetimes([array_bytes([variable.aval]) for variable in inputs])
    results = lifetimes(jaxpr, [frozenset([i]) for i in range(len(inputs))] + [NO_TENSORS] * weights)
    lifetimes.read(NO_TENSORS.union(*results))
    steps = range(len(inputs), len(lifetimes.sizes))
    alive = [
        sum(size for made, size in enumerate(lifetimes.sizes) if made <= step <= lifetimes.last_read[made]) for step in steps
    ]
    return max(
        [*alive, array_bytes([variable.aval for variable in inputs]), array_bytes([out.aval for out in jaxpr.outvars])]
    )


class _Lifetimes:
    """Walks a jaxpr and lists every stored tensor in the order of computation: its bytes and when it is last read.

    A tensor is named by its index in that list, which is also the step at which it is computed.
    """

    def __init__(self, sizes: list[int]):
        self.sizes = sizes
        self.last_read = list(range(len(sizes)))

    def read(self, tensors: frozenset[int]) -> None:
        """Marks tensors as read by the tensor that is computed next."""
        for tensor in tensors:
            self.last_read[tensor] = len(self.sizes)

    def __call__(self, jaxpr: Any, arguments: list[frozenset[int]]) -> list[frozenset[int]]:
        """For each result of the jaxpr the stored tensors that it is computed from, given those of its arguments."""
        sources: dict[Any, frozenset[int]] = dict(zip(jaxpr.invars, arguments, strict=True))
        for equation in jaxpr.eqns:
            results = self._equation(equation, [_sources_of(variable, sources) for variable in equation.invars])
            sources.update(zip(equation.outvars, results, strict=True))
        return [_sources_of(variable, sources) for variable in jaxpr.outvars]

    def _equation(self, equation: Any, operands: list[frozenset[int]]) -> list[frozenset[int]]:
        """The stored tensors that each result of one equation is computed from."""
        every = NO_TENSORS.union(*operands)
        name, parameters = equation.primitive.name, equation.params
        inner = list(inner_jaxprs(parameters))
        if name == "cond":
            return self(parameters["branches"][-1].jaxpr, operands[1:])
        if len(inner) == 1 and len(inner[0].invars) == len(operands) and name not in ("scan", "while"):
            return self(inner[0], operands)
        if not every or not (inner or name in STORED):
            return [every] * len(equation.outvars)
        self.read(every)
        self.sizes.append(array_bytes([variable.aval for variable in equation.outvars]))
        self.last_read.append(len(self.sizes) - 1)
        return [frozenset([len(self.sizes) - 1])] * len(equation.outvars)


def _sources_of(variable: Any, sources: Mapping[Any, frozenset[int]]) -> frozenset[int]:
    """The stored tensors that a variable is computed from; none for literals and constants."""
    return NO_TENSORS if isinstance(variable, Literal) else sources.get(variable, NO_TENSORS)
