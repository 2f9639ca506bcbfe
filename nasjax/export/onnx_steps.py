"""ONNX operators for the equations of a jaxpr."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from nasjax.export.onnx_graph import TO_CHANNELS_FIRST, Graph, Tensor, Value, unsupported


def _elementwise(operator: str) -> Callable[..., Tensor]:
    """An operator on values of one shape, in the layout of its operands."""

    def add(graph: Graph, equation: Any, *operands: Value) -> Tensor:
        channels_first = any(isinstance(value, Tensor) and value.channels_first for value in operands)
        return graph.add(operator, [graph.in_layout(value, channels_first) for value in operands], channels_first)

    return add


def _chain(*operators: str) -> Callable[..., Tensor]:
    """Operators on one value, one after the other."""

    def add(graph: Graph, equation: Any, value: Tensor) -> Tensor:
        for operator in operators:
            value = graph.add(operator, [value.name], value.channels_first)
        return value

    return add


def _power(graph: Graph, equation: Any, value: Tensor) -> Tensor:
    exponent = np.asarray(equation.params.get("y", 2), np.float32)
    return graph.add("Pow", [value.name, exponent], value.channels_first)


def _cast(graph: Graph, equation: Any, value: Tensor) -> Tensor:
    import onnx

    dtype = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(equation.outvars[0].aval.dtype))
    return graph.add("Cast", [value.name], value.channels_first, to=dtype)


def _select(graph: Graph, equation: Any, condition: Value, if_false: Value, if_true: Value) -> Value:
    if isinstance(condition, np.ndarray) and condition.ndim == 0:
        return if_true if condition else if_false
    return _elementwise("Where")(graph, equation, condition, if_true, if_false)


def _logical(operator: str) -> Callable[..., Tensor]:
    """A logical operator; JAX's is bitwise on integers, which ONNX's is not."""

    def add(graph: Graph, equation: Any, *operands: Value) -> Tensor:
        if equation.outvars[0].aval.dtype != np.bool_:
            raise unsupported("combines integers bitwise")
        return _elementwise(operator)(graph, equation, *operands)

    return add


def _not_equal(graph: Graph, equation: Any, *operands: Value) -> Tensor:
    return _chain("Not")(graph, equation, _elementwise("Equal")(graph, equation, *operands))


def _size(graph: Graph, equation: Any) -> Tensor:
    """A symbolic size as a number."""
    return _cast(graph, equation, graph.add("Squeeze", [graph.size(equation.params["dim"])]))


def _count(graph: Graph, equation: Any) -> Tensor:
    """0, 1, …, as many as an axis has a symbolic size."""
    if len(equation.params["shape"]) > 1:
        raise unsupported("has an iota of several axes")
    ends = graph.add("Squeeze", [graph.size(equation.params["shape"][0])]).name
    return _cast(graph, equation, graph.add("Range", [np.array(0, np.int64), ends, np.array(1, np.int64)]))


def _cumulative_sum(graph: Graph, equation: Any, value: Tensor) -> Tensor:
    axis, reverse = np.array(equation.params["axis"], np.int64), int(equation.params["reverse"])
    return graph.add("CumSum", [graph.in_layout(value, False), axis], reverse=reverse)


def _reshape(graph: Graph, equation: Any, value: Tensor) -> Tensor:
    """Reshapes to the shape of the result; images of one pixel change their layout on the way, without a transposition."""
    before, after = (v.aval.shape for v in (equation.invars[0], equation.outvars[0]))
    from_pixel = value.channels_first and before[1:3] == (1, 1)
    to_pixel = len(after) == 4 and after[1:3] == (1, 1)
    shape = tuple(after[i] for i in TO_CHANNELS_FIRST) if to_pixel else after
    source = value.name if from_pixel else graph.in_layout(value, False)
    one_unknown = sum(not isinstance(n, int) for n in shape) <= 1
    whole = np.array([n if isinstance(n, int) else -1 for n in shape], np.int64) if one_unknown else graph.shape(shape)
    return graph.add("Reshape", [source, whole], to_pixel)


def _broadcast(graph: Graph, equation: Any, value: Tensor) -> Tensor:
    before, after = (v.aval.shape for v in (equation.invars[0], equation.outvars[0]))
    axes = equation.params["broadcast_dimensions"]
    name = graph.in_layout(value, False)
    if new := [axis for axis in range(len(after)) if axis not in axes]:
        name = graph.add("Unsqueeze", [name, np.array(new, np.int64)]).name
    repeats = [1 if axis in axes and before[axes.index(axis)] == n else n for axis, n in enumerate(after)]
    if all(n == 1 for n in repeats):
        return Tensor(name)  # type: ignore[arg-type]
    return graph.add("Expand", [name, graph.shape(repeats)])


def _tile(graph: Graph, equation: Any, value: Tensor) -> Tensor:
    return graph.add("Tile", [graph.in_layout(value, False), graph.shape(equation.params["reps"])])


def _reduce(operator: str) -> Callable[..., Tensor]:
    """A reduction over axes; over height and width without a transposition."""

    def add(graph: Graph, equation: Any, value: Tensor) -> Tensor:
        axes = tuple(equation.params["axes"])
        keeps_layout = value.channels_first and axes == (1, 2)
        name = graph.in_layout(value, keeps_layout)
        axes = (2, 3) if keeps_layout else axes
        if operator == "ReduceSum":  # The only one whose axes are an input in this opset.
            return graph.add(operator, [name, np.array(axes, np.int64)], keepdims=0)
        return graph.add(operator, [name], axes=axes, keepdims=0)

    return add


def _by_axis(values: Sequence[Any], channels_first: bool) -> list[Any]:
    """Parameters of each axis, reordered to the layout of a tensor."""
    return [values[i] for i in TO_CHANNELS_FIRST] if channels_first else list(values)


def _slice(graph: Graph, equation: Any, value: Tensor) -> Tensor:
    shape, start, stop = equation.invars[0].aval.shape, equation.params["start_indices"], equation.params["limit_indices"]
    strides = equation.params["strides"] or (1,) * len(shape)
    return _strided_slice(graph, value, shape, start, stop, strides)


def _strided_slice(graph: Graph, value: Tensor, shape: Any, start: Any, stop: Any, strides: Any) -> Tensor:
    """A slice of every axis; axes that are kept whole, such as a symbolic batch, are left out."""
    rows = _by_axis(list(zip(shape, start, stop, strides, strict=True)), value.channels_first)
    sliced = [(i, *row[1:]) for i, row in enumerate(rows) if not (row[1] == 0 and row[2] == row[0] and row[3] == 1)]
    if not sliced:
        return value
    axes, starts, stops, steps = (np.array(column, np.int64) for column in zip(*sliced, strict=True))
    return graph.add("Slice", [value.name, starts, stops, axes, steps], value.channels_first)


def _gather(graph: Graph, equation: Any, value: Value, indices: Value) -> Tensor:
    """A slice at constant indices, such as `x[:, 0]`, or rows of computed ones along an axis, such as `table[tokens]`."""
    numbers, sizes = equation.params["dimension_numbers"], equation.params["slice_sizes"]
    shape = equation.invars[0].aval.shape
    if (
        isinstance(value, Tensor)
        and isinstance(indices, np.ndarray)
        and indices.ndim == 1
        and not numbers.operand_batching_dims
    ):
        start = [0] * len(shape)
        for axis, index in zip(numbers.start_index_map, indices.tolist(), strict=True):
            start[axis] = min(max(index, 0), shape[axis] - sizes[axis])
        stop = [n if i == 0 else i + n for i, n in zip(start, sizes, strict=True)]
        return _reshape(graph, equation, _strided_slice(graph, value, shape, start, stop, (1,) * len(shape)))
    axis, *others = numbers.start_index_map
    more = len(equation.invars[1].aval.shape) - 1  # The last axis of indices has one for each axis of `start_index_map`.
    kept = tuple(i if i < axis else i + more - 1 for i in range(len(shape)) if i != axis)
    rows = tuple(1 if i == axis else n for i, n in enumerate(shape))
    if others or numbers.collapsed_slice_dims != (axis,) or numbers.offset_dims != kept or tuple(sizes) != rows:
        raise unsupported("gathers other things than rows")
    chosen = graph.add("Squeeze", [graph.in_layout(indices, False), np.array([-1], np.int64)]).name
    return graph.add("Gather", [graph.in_layout(value, False), chosen], axis=axis)


def _start(graph: Graph, index: Value, size: Any, part: Any) -> Any:
    """Where a part of an axis starts, int64 (1,): at an index, or before it, so that the part ends within the axis."""
    number = graph.add("Cast", [graph.in_layout(index, False)], to=7).name  # 7: int64
    last = graph.add("Sub", [graph.size(size), graph.size(part)]).name
    return graph.add("Min", [graph.add("Reshape", [number, np.array([1], np.int64)]).name, last]).name


def _dynamic_slice(graph: Graph, equation: Any, value: Value, *indices: Value) -> Value:
    """A slice at computed indices."""
    shape, sizes = equation.invars[0].aval.shape, equation.params["slice_sizes"]
    for axis, (size, part, index) in enumerate(zip(shape, sizes, indices, strict=True)):
        if size != part:
            start = _start(graph, index, size, part)
            stop = graph.add("Add", [start, graph.size(part)]).name
            value = graph.add("Slice", [graph.in_layout(value, False), start, stop, np.array([axis], np.int64)])
    return value


def _dynamic_update_slice(graph: Graph, equation: Any, value: Value, new: Value, *indices: Value) -> Value:
    """New entries along one axis from a computed index on: what stands before them, themselves, and what stands behind."""
    shape, sizes = (v.aval.shape for v in equation.invars[:2])
    changed = [axis for axis, (size, part) in enumerate(zip(shape, sizes, strict=True)) if size != part]
    if len(changed) != 1:
        raise unsupported("updates a slice of several axes")
    (axis,) = changed
    start = _start(graph, indices[axis], shape[axis], sizes[axis])
    stop = graph.add("Add", [start, graph.size(sizes[axis])]).name
    whole, ends, axes = graph.in_layout(value, False), (np.array([0]), np.array([2**62])), np.array([axis])
    before = graph.add("Slice", [whole, ends[0], start, axes]).name
    behind = graph.add("Slice", [whole, stop, ends[1], axes]).name
    return graph.add("Concat", [before, graph.in_layout(new, False), behind], axis=axis)


def _unstack(graph: Graph, equation: Any, value: Tensor) -> list[Value]:
    """Every slice along one axis, without that axis, as `q, k, v = x` takes them (JAX 0.11 and later)."""
    shape, axis = equation.invars[0].aval.shape, equation.params["axis"]
    parts: list[Value] = []
    for index in range(shape[axis]):
        start = [index if i == axis else 0 for i in range(len(shape))]
        stop = [index + 1 if i == axis else n for i, n in enumerate(shape)]
        parts.append(_reshape(graph, equation, _strided_slice(graph, value, shape, start, stop, (1,) * len(shape))))
    return parts


def _log2(graph: Graph, equation: Any, value: Tensor) -> Tensor:
    return _elementwise("Div")(graph, equation, _chain("Log")(graph, equation, value), np.asarray(np.log(2), np.float32))


def _pad(graph: Graph, equation: Any, value: Tensor, fill: np.ndarray) -> Tensor:
    rows = _by_axis(equation.params["padding_config"], value.channels_first)
    if any(interior for _, _, interior in rows) or min(min(low, high) for low, high, _ in rows) < 0:
        raise unsupported("pads between elements or by negative amounts")
    pads = np.array([low for low, _, _ in rows] + [high for _, high, _ in rows], np.int64)
    return graph.add("Pad", [value.name, pads, fill], value.channels_first)


def _concatenate(graph: Graph, equation: Any, *operands: Value | None) -> Value:
    """Concatenation; operands that are None are empty and left out."""
    parts = [value for value in operands if value is not None]
    if len(parts) == 1:
        return parts[0]
    axis = equation.params["dimension"]
    channels_first = all(isinstance(value, Tensor) and value.channels_first for value in parts)
    if channels_first:
        axis = TO_CHANNELS_FIRST.index(axis)
    return graph.add("Concat", [graph.in_layout(value, channels_first) for value in parts], channels_first, axis=axis)


def _transpose(graph: Graph, equation: Any, value: Tensor) -> Tensor:
    return graph.add("Transpose", [graph.in_layout(value, False)], perm=equation.params["permutation"])


def _dot(graph: Graph, equation: Any, left: Value, right: Value) -> Tensor:
    """A matrix product: a 1 x 1 convolution of images by a constant, a MatMul, or else an Einsum."""
    (left_axes, right_axes), (batch_axes, _) = equation.params["dimension_numbers"]
    rank = len(equation.invars[0].aval.shape)
    last_by_first = tuple(left_axes) == (rank - 1,) and tuple(right_axes) == (0,)
    if last_by_first and isinstance(right, np.ndarray) and right.ndim == 2:
        if rank == 4:
            kernel = np.ascontiguousarray(right.T)[:, :, None, None]
            return graph.add("Conv", [graph.in_layout(left, True), kernel], True)
        return graph.add("MatMul", [graph.in_layout(left, False), right])
    letters = iter("abcdefghijklmnopqrstuvwxyz")
    left_letters = [next(letters) for _ in range(rank)]
    right_letters = [next(letters) for _ in range(len(equation.invars[1].aval.shape))]
    for pairs in equation.params["dimension_numbers"]:
        for i, j in zip(*pairs, strict=True):
            right_letters[j] = left_letters[i]
    batch = [left_letters[i] for i in batch_axes]
    summed = {left_letters[i] for i in left_axes}
    result = batch + [letter for letter in left_letters + right_letters if letter not in summed and letter not in batch]
    product = f"{''.join(left_letters)},{''.join(right_letters)}->{''.join(result)}"
    return graph.add("Einsum", [graph.in_layout(left, False), graph.in_layout(right, False)], equation=product)


def _convolution(graph: Graph, equation: Any, value: Value, kernel: Value) -> Tensor:
    parameters = equation.params
    numbers = parameters["dimension_numbers"]
    nhwc_by_hwio = (numbers.lhs_spec, numbers.rhs_spec, numbers.out_spec) == (
        TO_CHANNELS_FIRST,
        (3, 2, 0, 1),
        TO_CHANNELS_FIRST,
    )
    plain = set(parameters["lhs_dilation"]) == {1} and parameters["batch_group_count"] == 1
    if not nhwc_by_hwio or not plain or isinstance(kernel, Tensor):
        raise unsupported("has a convolution other than NHWC by a constant HWIO kernel")
    pads = [low for low, _ in parameters["padding"]] + [high for _, high in parameters["padding"]]
    return graph.add(
        "Conv",
        [graph.in_layout(value, True), np.ascontiguousarray(kernel.transpose(3, 2, 0, 1))],
        True,
        group=parameters["feature_group_count"],
        pads=pads,
        strides=parameters["window_strides"],
        dilations=parameters["rhs_dilation"],
    )


def _max_pool(graph: Graph, equation: Any, value: Tensor) -> Tensor:
    parameters = equation.params
    window, strides, padding = parameters["window_dimensions"], parameters["window_strides"], parameters["padding"]
    # Batch and channels must not be pooled: windows and strides of 1, no padding.
    others = (window[0], window[-1], strides[0], strides[-1], *padding[0], *padding[-1], *parameters["base_dilation"])
    if len(window) != 4 or set(others) - {0, 1} or set(parameters["window_dilation"]) != {1}:
        raise unsupported("pools over other axes than height and width")
    pads = [low for low, _ in padding[1:3]] + [high for _, high in padding[1:3]]
    return graph.add(
        "MaxPool", [graph.in_layout(value, True)], True, kernel_shape=window[1:3], strides=strides[1:3], pads=pads
    )


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
    "ne": _not_equal,
    **{name.lower(): _logical(name) for name in ("And", "Or", "Xor", "Not")},
    "cumsum": _cumulative_sum,
    "reduce_sum": _reduce("ReduceSum"),
    "reduce_max": _reduce("ReduceMax"),
    "reduce_min": _reduce("ReduceMin"),
    "reshape": _reshape,
    "squeeze": _reshape,
    "expand_dims": _reshape,
    "broadcast_in_dim": _broadcast,
    "slice": _slice,
    "gather": _gather,
    "tile": _tile,
    "dynamic_slice": _dynamic_slice,
    "dynamic_update_slice": _dynamic_update_slice,
    "unstack": _unstack,
    "pad": _pad,
    "concatenate": _concatenate,
    "transpose": _transpose,
    "dot_general": _dot,
    "conv_general_dilated": _convolution,
    "reduce_window_max": _max_pool,
}
"""For each JAX primitive, by name, a function that adds ONNX nodes: (graph, equation, *operands) -> result."""

SIZES: dict[str, Callable[..., Tensor]] = {"dim_as_value": _size, "iota": _count}
"""As OPERATORS, for primitives without operands, whose results depend on a symbolic size."""
