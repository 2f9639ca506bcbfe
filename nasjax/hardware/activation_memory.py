"""The memory of activations: which tensors of a jaxpr stand in memory, from when to when."""

from collections.abc import Iterable, Iterator, Mapping
from math import prod
from typing import Any

from jax.extend.core import Literal

PRODUCTS = ("dot_general", "conv_general_dilated")
"""Whose results stand in memory; loops' and branches' do too."""

NONE: frozenset[int] = frozenset()


def array_bytes(arrays: Iterable[Any]) -> int:
    """Bytes of arrays, or of shapes."""
    return sum(prod(array.shape) * array.dtype.itemsize for array in arrays)


def inner_jaxprs(parameters: dict[str, Any]) -> Iterator[Any]:
    """The jaxprs among an equation's parameters."""
    for value in parameters.values():
        inner = getattr(value, "jaxpr", value)
        if hasattr(inner, "eqns"):
            yield inner


def jaxpr_memory(jaxpr: Any, weights: int) -> int:
    """The peak of the bytes of activations, the last `weights` arguments being none.

    What matrix products and convolutions read and write stands in memory from its making to its last reading, a stage's
    input and result too; all between them is computed on the way. As for `jaxpr_macs`, the default platform's branch counts.
    """
    inputs = list(jaxpr.invars[: len(jaxpr.invars) - weights])
    walk = _Walk([array_bytes([variable.aval]) for variable in inputs])
    results = walk(jaxpr, [frozenset([i]) for i in range(len(inputs))] + [NONE] * weights)
    walk.read(NONE.union(*results))
    steps = range(len(inputs), len(walk.sizes))
    alive = [sum(size for made, size in enumerate(walk.sizes) if made <= step <= walk.last[made]) for step in steps]
    return max(
        [*alive, array_bytes([variable.aval for variable in inputs]), array_bytes([out.aval for out in jaxpr.outvars])]
    )


class _Walk:
    """Follows a jaxpr: bytes of every tensor that stands in memory, in the order of their making, and their last reading."""

    def __init__(self, sizes: list[int]):
        self.sizes = sizes
        self.last = list(range(len(sizes)))

    def read(self, tensors: frozenset[int]) -> None:
        """They are needed by whatever is made next."""
        for tensor in tensors:
            self.last[tensor] = len(self.sizes)

    def __call__(self, jaxpr: Any, arguments: list[frozenset[int]]) -> list[frozenset[int]]:
        """The tensors that each result is computed from."""
        of: dict[Any, frozenset[int]] = dict(zip(jaxpr.invars, arguments, strict=True))
        for equation in jaxpr.eqns:
            results = self._results(equation, [_found(of, variable) for variable in equation.invars])
            of.update(zip(equation.outvars, results, strict=True))
        return [_found(of, variable) for variable in jaxpr.outvars]

    def _results(self, equation: Any, read: list[frozenset[int]]) -> list[frozenset[int]]:
        every = NONE.union(*read)
        name, parameters = equation.primitive.name, equation.params
        inner = list(inner_jaxprs(parameters))
        if name == "cond":
            return self(parameters["branches"][-1].jaxpr, read[1:])
        if len(inner) == 1 and len(inner[0].invars) == len(read) and name not in ("scan", "while"):
            return self(inner[0], read)
        if not every or not (inner or name in PRODUCTS):
            return [every] * len(equation.outvars)
        self.read(every)
        self.sizes.append(array_bytes([variable.aval for variable in equation.outvars]))
        self.last.append(len(self.sizes) - 1)
        return [frozenset([len(self.sizes) - 1])] * len(equation.outvars)


def _found(of: Mapping[Any, frozenset[int]], variable: Any) -> frozenset[int]:
    """A literal or a constant is computed from nothing."""
    return NONE if isinstance(variable, Literal) else of.get(variable, NONE)
