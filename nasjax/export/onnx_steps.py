"""JAX's steps as ONNX's operators, and the graph that they are added to."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from nasjax.errors import ConfigError

FIRST = (0, 3, 1, 2)
"""Where an axis that comes i-th with channels first stands with channels last."""

LAST = (0, 2, 3, 1)


class Tensor(NamedTuple):
    """A value that depends on the pictures; `first`: it is held with channels first."""

    name: str
    first: bool = False


Value = Tensor | np.ndarray
"""What a step takes: a tensor of the graph, or a constant."""


@dataclass
class Graph:
    """The nodes and constants so far, and what was already turned to the other order."""

    nodes: list[Any] = field(default_factory=list)
    constants: list[Any] = field(default_factory=list)
    turned: dict[Tensor, Tensor] = field(default_factory=dict)

    def add(
        self, operator: str, inputs: Sequence[str | np.ndarray], first: bool = False, name: str = "", **attributes: Any
    ) -> Tensor:
        """One more node; arrays among its inputs become constants of the graph."""
        import onnx

        names = []
        for given in inputs:
            if isinstance(given, np.ndarray):
                self.constants.append(onnx.numpy_helper.from_array(given, f"c{len(self.constants)}"))
                given = self.constants[-1].name
            names.append(given)
        name = name or f"t{len(self.nodes)}"
        self.nodes.append(onnx.helper.make_node(operator, names, [name], **attributes))
        return Tensor(name, first)

    def turn(self, value: Value, first: bool) -> str | np.ndarray:
        """A value of four axes with channels first or last; any other as it is."""
        if isinstance(value, np.ndarray):
            return np.ascontiguousarray(value.transpose(FIRST)) if first and value.ndim == 4 else value
        if value.first == first:
            return value.name
        if value not in self.turned:
            self.turned[value] = self.add("Transpose", [value.name], first, perm=FIRST if first else LAST)
        return self.turned[value].name


def _elementwise(operator: str) -> Callable[..., Tensor]:
    def add(graph: Graph, step: Any, *given: Value) -> Tensor:
        first = any(isinstance(value, Tensor) and value.first for value in given)
        return graph.add(operator, [graph.turn(value, first) for value in given], first)

    return add


def _chain(*operators: str) -> Callable[..., Tensor]:
    def add(graph: Graph, step: Any, value: Tensor) -> Tensor:
        for operator in operators:
            value = graph.add(operator, [value.name], value.first)
        return value

    return add


def _power(graph: Graph, step: Any, value: Tensor) -> Tensor:
    exponent = np.asarray(step.params.get("y", 2), np.float32)
    return graph.add("Pow", [value.name, exponent], value.first)


def _cast(graph: Graph, step: Any, value: Tensor) -> Tensor:
    import onnx

    kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(step.params["new_dtype"]))
    return graph.add("Cast", [value.name], value.first, to=kind)


def _select(graph: Graph, step: Any, which: Value, no: Value, yes: Value) -> Tensor:
    return _elementwise("Where")(graph, step, which, yes, no)


def _sizes(shape: Sequence[Any]) -> np.ndarray:
    """A shape as ONNX takes it. Raises ConfigError where two sizes are open."""
    if sum(not isinstance(n, int) for n in shape) > 1:
        raise ConfigError("the network mixes the batch with another axis: ONNX export needs a fixed batch")
    return np.array([n if isinstance(n, int) else -1 for n in shape], np.int64)


def _reshape(graph: Graph, step: Any, value: Tensor) -> Tensor:
    """To the shape of the result; a map of one pixel is turned by it at no cost."""
    before, after = (v.aval.shape for v in (step.invars[0], step.outvars[0]))
    free = value.first and before[1:3] == (1, 1)
    pixel = len(after) == 4 and after[1:3] == (1, 1)
    shape = tuple(after[i] for i in FIRST) if pixel else after
    return graph.add("Reshape", [value.name if free else graph.turn(value, False), _sizes(shape)], pixel)


def _broadcast(graph: Graph, step: Any, value: Tensor) -> Tensor:
    before, after = (v.aval.shape for v in (step.invars[0], step.outvars[0]))
    places = step.params["broadcast_dimensions"]
    spread = [before[places.index(axis)] if axis in places else 1 for axis in range(len(after))]
    wider = [1 if n is m or n == m else n for n, m in zip(after, spread, strict=True)]
    found = graph.add("Reshape", [graph.turn(value, False), _sizes(spread)])
    if all(n == 1 for n in wider):
        return found
    return graph.add("Expand", [found.name, _sizes(wider)])


def _reduce(operator: str) -> Callable[..., Tensor]:
    def add(graph: Graph, step: Any, value: Tensor) -> Tensor:
        axes = tuple(step.params["axes"])
        whole = value.first and axes == (1, 2)
        name = graph.turn(value, whole)
        axes = (2, 3) if whole else axes
        if operator == "ReduceSum":  # The only one whose axes are an input in this version.
            return graph.add(operator, [name, np.array(axes, np.int64)], keepdims=0)
        return graph.add(operator, [name], axes=axes, keepdims=0)

    return add


def _ordered(values: Sequence[Any], first: bool) -> list[Any]:
    """What is given axis by axis, in the order that a tensor is held in."""
    return [values[i] for i in FIRST] if first else list(values)


def _slice(graph: Graph, step: Any, value: Tensor) -> Tensor:
    shape, start, stop = step.invars[0].aval.shape, step.params["start_indices"], step.params["limit_indices"]
    strides = step.params["strides"] or (1,) * len(shape)
    return _cut(graph, value, shape, start, stop, strides)


def _cut(graph: Graph, value: Tensor, shape: Any, start: Any, stop: Any, strides: Any) -> Tensor:
    """A part of every axis; axes taken whole, such as the batch, are left out."""
    rows = _ordered(list(zip(shape, start, stop, strides, strict=True)), value.first)
    cut = [(i, *row[1:]) for i, row in enumerate(rows) if not (row[1] == 0 and row[2] == row[0] and row[3] == 1)]
    if not cut:
        return value
    axes, starts, stops, steps = (np.array(column, np.int64) for column in zip(*cut, strict=True))
    return graph.add("Slice", [value.name, starts, stops, axes, steps], value.first)


def _gather(graph: Graph, step: Any, value: Tensor, indices: np.ndarray) -> Tensor:
    """A part that constant indices name, as `x[:, 0]` does."""
    how, sizes = step.params["dimension_numbers"], step.params["slice_sizes"]
    if isinstance(indices, Tensor) or indices.ndim != 1 or how.operand_batching_dims:
        raise ConfigError("the network picks by computed indices, which ONNX export does not know; .stablehlo takes it")
    shape = step.invars[0].aval.shape
    start = [0] * len(shape)
    for axis, index in zip(how.start_index_map, indices.tolist(), strict=True):
        start[axis] = min(max(index, 0), shape[axis] - sizes[axis])
    stop = [n if i == 0 else i + n for i, n in zip(start, sizes, strict=True)]
    return _reshape(graph, step, _cut(graph, value, shape, start, stop, (1,) * len(shape)))


def _unstack(graph: Graph, step: Any, value: Tensor) -> list[Value]:
    """Every slice along one axis, without that axis, as `q, k, v = x` takes them (JAX 0.11 and later)."""
    shape, axis = step.invars[0].aval.shape, step.params["axis"]
    parts: list[Value] = []
    for index in range(shape[axis]):
        start = [index if i == axis else 0 for i in range(len(shape))]
        stop = [index + 1 if i == axis else n for i, n in enumerate(shape)]
        parts.append(_reshape(graph, step, _cut(graph, value, shape, start, stop, (1,) * len(shape))))
    return parts


def _log2(graph: Graph, step: Any, value: Tensor) -> Tensor:
    return _elementwise("Div")(graph, step, _chain("Log")(graph, step, value), np.asarray(np.log(2), np.float32))


def _pad(graph: Graph, step: Any, value: Tensor, filler: np.ndarray) -> Tensor:
    rows = _ordered(step.params["padding_config"], value.first)
    if any(inside for _, _, inside in rows) or min(min(low, high) for low, high, _ in rows) < 0:
        raise ConfigError("the network pads between elements or below zero, which ONNX export does not know")
    pads = np.array([low for low, _, _ in rows] + [high for _, high, _ in rows], np.int64)
    return graph.add("Pad", [value.name, pads, filler], value.first)


def _concatenate(graph: Graph, step: Any, *given: Value | None) -> Value:
    parts = [value for value in given if value is not None]
    if len(parts) == 1:
        return parts[0]
    axis = step.params["dimension"]
    first = all(isinstance(value, Tensor) and value.first for value in parts)
    return graph.add(
        "Concat", [graph.turn(value, first) for value in parts], first, axis=FIRST.index(axis) if first else axis
    )


def _transpose(graph: Graph, step: Any, value: Tensor) -> Tensor:
    return graph.add("Transpose", [graph.turn(value, False)], perm=step.params["permutation"])


def _dot(graph: Graph, step: Any, one: Value, other: Value) -> Tensor:
    """A product of matrices; with four axes it is a convolution of 1 x 1."""
    (mine, theirs), (batch, _) = step.params["dimension_numbers"]
    rank = len(step.invars[0].aval.shape)
    if isinstance(other, np.ndarray) and other.ndim == 2 and tuple(mine) == (rank - 1,) and tuple(theirs) == (0,):
        if rank == 4:
            return graph.add("Conv", [graph.turn(one, True), np.ascontiguousarray(other.T)[:, :, None, None]], True)
        return graph.add("MatMul", [graph.turn(one, False), other])
    letters = iter("abcdefghijklmnopqrstuvwxyz")
    left = [next(letters) for _ in range(rank)]
    right = [next(letters) for _ in range(len(step.invars[1].aval.shape))]
    both = step.params["dimension_numbers"]
    for pairs in both:
        for i, j in zip(*pairs, strict=True):
            right[j] = left[i]
    shared = [left[i] for i in batch]
    summed = {left[i] for i in mine}
    answer = shared + [letter for letter in left + right if letter not in summed and letter not in shared]
    equation = f"{''.join(left)},{''.join(right)}->{''.join(answer)}"
    return graph.add("Einsum", [graph.turn(one, False), graph.turn(other, False)], equation=equation)


def _convolution(graph: Graph, step: Any, value: Value, weight: Value) -> Tensor:
    how = step.params
    numbers = how["dimension_numbers"]
    usual = (numbers.lhs_spec, numbers.rhs_spec, numbers.out_spec) == (FIRST, (3, 2, 0, 1), FIRST)
    if not usual or set(how["lhs_dilation"]) != {1} or how["batch_group_count"] != 1 or isinstance(weight, Tensor):
        raise ConfigError("the network has a convolution other than NHWC by constant HWIO, which ONNX export does not know")
    turned = np.ascontiguousarray(weight.transpose(3, 2, 0, 1))
    pads = [low for low, _ in how["padding"]] + [high for _, high in how["padding"]]
    return graph.add("Conv", [graph.turn(value, True), turned], True, group=how["feature_group_count"], pads=pads,
                     strides=how["window_strides"], dilations=how["rhs_dilation"])  # fmt: skip


def _max_pool(graph: Graph, step: Any, value: Tensor) -> Tensor:
    how = step.params
    window, strides, padding = how["window_dimensions"], how["window_strides"], how["padding"]
    ends = (window[0], window[-1], strides[0], strides[-1], *padding[0], *padding[-1], *how["base_dilation"])
    if len(window) != 4 or set(ends) - {0, 1} or set(how["window_dilation"]) != {1}:
        raise ConfigError("the network pools over other axes than height and width, which ONNX export does not know")
    pads = [low for low, _ in padding[1:3]] + [high for _, high in padding[1:3]]
    return graph.add("MaxPool", [graph.turn(value, True)], True, kernel_shape=window[1:3], strides=strides[1:3], pads=pads)


OPERATORS: dict[str, Callable[..., Value | list[Value]]] = {
    **{name.lower(): _elementwise(name) for name in ("Add", "Sub", "Mul", "Div", "Max", "Min", "Pow")},
    **{name.lower(): _chain(name) for name in ("Neg", "Exp", "Log", "Tanh", "Sqrt", "Abs", "Erf", "Floor")},
    "logistic": _chain("Sigmoid"),
    "rsqrt": _chain("Sqrt", "Reciprocal"),
    "log2": _log2,
    "copy": _chain("Identity"),
    "stop_gradient": _chain("Identity"),
    "integer_pow": _power,
    "square": _power,
    "convert_element_type": _cast,
    "select_n": _select,
    "gt": _elementwise("Greater"),
    "lt": _elementwise("Less"),
    "ge": _elementwise("GreaterOrEqual"),
    "le": _elementwise("LessOrEqual"),
    "eq": _elementwise("Equal"),
    "reduce_sum": _reduce("ReduceSum"),
    "reduce_max": _reduce("ReduceMax"),
    "reduce_min": _reduce("ReduceMin"),
    "reshape": _reshape,
    "squeeze": _reshape,
    "expand_dims": _reshape,
    "broadcast_in_dim": _broadcast,
    "slice": _slice,
    "gather": _gather,
    "unstack": _unstack,
    "pad": _pad,
    "concatenate": _concatenate,
    "transpose": _transpose,
    "dot_general": _dot,
    "conv_general_dilated": _convolution,
    "reduce_window_max": _max_pool,
}
"""JAX's steps, by name, as ONNX's operators."""
