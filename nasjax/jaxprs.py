"""Walking through jaxprs: those inside an equation, and the multiply-accumulates of all."""

from collections.abc import Iterator, Mapping
from math import prod
from typing import Any


def inner_jaxprs(parameters: Mapping[str, Any]) -> Iterator[Any]:
    """The jaxprs among an equation's parameters, those of all branches too."""
    for parameter in parameters.values():
        for value in parameter if type(parameter) is tuple else [parameter]:
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield inner


def jaxpr_macs(jaxpr: Any) -> int:
    """Multiply-accumulates of all matrix products and convolutions in a jaxpr.

    If a computation depends on the platform, the branch of the default platform (XLA's convolution) counts.
    """
    total = 0
    for equation in jaxpr.eqns:
        name, parameters = equation.primitive.name, equation.params
        if name == "dot_general":
            (contracted, _), _ = parameters["dimension_numbers"]
            shape = equation.invars[0].aval.shape
            total += prod(equation.outvars[0].aval.shape) * prod(shape[axis] for axis in contracted)
        elif name == "conv_general_dilated":
            kernel, numbers = equation.invars[1].aval.shape, parameters["dimension_numbers"]
            total += prod(equation.outvars[0].aval.shape) * prod(kernel) // kernel[numbers.rhs_spec[0]]
        elif name == "cond":
            total += jaxpr_macs(parameters["branches"][-1].jaxpr)
        elif name == "scan":
            total += parameters["length"] * jaxpr_macs(parameters["jaxpr"].jaxpr)
        else:
            total += sum(map(jaxpr_macs, inner_jaxprs(parameters)))
    return total
