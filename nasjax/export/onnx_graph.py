"""The ONNX graph that operators are added to.

Networks for images hold them with channels last (NHWC). ONNX's convolutions and pooling want channels first (NCHW), so that
every tensor of the graph knows its layout, and is transposed only where an operator needs the other one.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from nasjax.errors import ConfigError

TO_CHANNELS_FIRST = (0, 3, 1, 2)
"""Permutation from NHWC to NCHW."""

TO_CHANNELS_LAST = (0, 2, 3, 1)
"""Permutation from NCHW to NHWC."""


class Tensor(NamedTuple):
    """A value of the graph, which depends on the network's inputs, by its name; constants are NumPy arrays instead."""

    name: str
    channels_first: bool = False


Value = Tensor | np.ndarray
"""Operand of an equation: a tensor of the graph, or a constant in JAX's layout."""

Operand = str | np.ndarray
"""Input of a node: a tensor's name, or a constant."""


def unsupported(what: str) -> ConfigError:
    """The error for a network that does what ONNX export has no operators for."""
    return ConfigError(f"the network {what}, which ONNX export does not support; export it as .stablehlo")


@dataclass
class Graph:
    """Nodes and constants of an ONNX graph so far.

    `transposed` keeps tensors in their other layout, `axes` the input and the axis that each symbolic size is read of, and
    `sizes` and `shapes` the tensors of those that were needed.
    """

    nodes: list[Any] = field(default_factory=list)
    constants: list[Any] = field(default_factory=list)
    transposed: dict[Tensor, Tensor] = field(default_factory=dict)
    axes: dict[Any, tuple[str, int]] = field(default_factory=dict)
    sizes: dict[Any, str] = field(default_factory=dict)
    shapes: dict[Any, str] = field(default_factory=dict)

    def given(self, name: str, shape: Sequence[Any]) -> Tensor:
        """An input of the graph."""
        for axis, size in enumerate(shape):
            if not isinstance(size, int):
                self.axes.setdefault(size, (name, axis))
        return Tensor(name)

    def add(
        self,
        operator: str,
        inputs: Sequence[Operand],
        channels_first: bool = False,
        name: str = "",
        **attributes: Any,
    ) -> Tensor:
        """Adds a node and returns its result; arrays among `inputs` become constants of the graph."""
        import onnx

        names = []
        for value in inputs:
            if isinstance(value, np.ndarray):
                self.constants.append(onnx.numpy_helper.from_array(value, f"c{len(self.constants)}"))
                value = self.constants[-1].name
            names.append(value)
        name = name or f"t{len(self.nodes)}"
        self.nodes.append(onnx.helper.make_node(operator, names, [name], **attributes))
        return Tensor(name, channels_first)

    def in_layout(self, value: Value, channels_first: bool) -> Operand:
        """An input for `add`: the value with channels first or last. Constants without four axes have one layout only."""
        if isinstance(value, np.ndarray):
            if channels_first and value.ndim == 4:
                return np.ascontiguousarray(value.transpose(TO_CHANNELS_FIRST))
            return value
        if value.channels_first == channels_first:
            return value.name
        if value not in self.transposed:
            permutation = TO_CHANNELS_FIRST if channels_first else TO_CHANNELS_LAST
            self.transposed[value] = self.add("Transpose", [value.name], channels_first, perm=permutation)
        return self.transposed[value].name

    def size(self, size: Any) -> Operand:
        """A size of an axis, int64 (1,); a symbolic one is read of an input's shape, or is a product of such sizes.

        Raises ConfigError for any other, such as a sum.
        """
        if isinstance(size, int):
            return np.array([size], np.int64)
        if size not in self.sizes:
            self.sizes[size] = self._computed(size).name
        return self.sizes[size]

    def _computed(self, size: Any) -> Tensor:
        if size in self.axes:
            name, axis = self.axes[size]
            return self.add("Shape", [name], start=axis, end=axis + 1)
        for factor in self.axes:
            if factor * (size // factor) == size:
                return self.add("Mul", [self.size(factor), self.size(size // factor)])
        raise unsupported(f"computes an axis of size {size}")

    def shape(self, shape: Sequence[Any]) -> Operand:
        """A shape, int64 (axes,)."""
        if all(isinstance(size, int) for size in shape):
            return np.array(shape, np.int64)
        if tuple(shape) not in self.shapes:
            self.shapes[tuple(shape)] = self.add("Concat", [self.size(size) for size in shape], axis=0).name
        return self.shapes[tuple(shape)]
