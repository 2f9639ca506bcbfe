"""Export to ONNX: translates the jaxpr of an extracted network, operation by operation, into ONNX's operators.

Operations on weights alone are computed here, so that a batch norm becomes a product and a sum. Images are (batch, height,
width, channels); between convolutions feature maps are (batch, channels, height, width), ONNX's layout.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.extend.core import Literal
from jaxtyping import PyTree

from nasjax.errors import ConfigError
from nasjax.export.onnx_graph import Graph, Tensor, Value
from nasjax.export.onnx_steps import OPERATORS, SIZES
from nasjax.export.programs import Program, whole
from nasjax.supernets import SuperNet

OPSET = 17
"""The version of ONNX's operator set: of 2022, which all maintained runtimes support."""


def to_onnx(net: SuperNet, about: Any = None, batch: int | None = None) -> bytes:
    """An extracted network as an ONNX model, `images` -> `logits`, for `batch` examples at a time (None: any number).

    `images` is the network's input, float32 (batch, height, width, channels) of images; a dict's arrays keep their names.
    Raises ConfigError for a network with other inputs, and for an operation that is not in OPERATORS.
    """
    return program_to_onnx(net, whole(net, batch))


def program_to_onnx(net: SuperNet, program: Program) -> bytes:
    """A program of an extracted network, as `to_onnx` does the whole."""
    import onnx

    inputs = _by_name(program.inputs, "images")
    graph, weights = nnx.split(net)

    def function(inputs: Any, weights: Any) -> dict[str, Any]:
        given = inputs if isinstance(program.inputs, dict) else inputs["images"]
        return _by_name(program.function(nnx.merge(graph, weights), given), "logits")

    closed, outputs = jax.make_jaxpr(function, return_shape=True)(inputs, weights)
    made = Graph()
    given = [made.given(name, inputs[name].shape) for name in sorted(inputs)]  # As JAX orders a dict.
    constants = [np.asarray(leaf) for leaf in jax.tree.leaves(weights)]
    results = _translate(made, closed.jaxpr, [np.asarray(c) for c in closed.consts], [*given, *constants])
    for name, result in zip(sorted(outputs), results, strict=True):
        made.add("Identity", [made.in_layout(result, False)], name=name)
    drawn = onnx.helper.make_graph(made.nodes, type(net).__name__, _ends(inputs), _ends(outputs), made.constants)
    model = onnx.helper.make_model(drawn, opset_imports=[onnx.helper.make_opsetid("", OPSET)], producer_name="nasjax")
    model.ir_version = 8  # The format version of that operator set.
    onnx.checker.check_model(model)
    return model.SerializeToString()


def _ends(shapes: dict[str, Any]) -> list[Any]:
    """Descriptions of the graph's inputs or outputs; symbolic sizes have names."""
    import onnx

    rows = [(name, np.dtype(shape.dtype), shape.shape) for name, shape in sorted(shapes.items())]
    return [
        onnx.helper.make_tensor_value_info(
            name, onnx.helper.np_dtype_to_tensor_dtype(dtype), [n if isinstance(n, int) else str(n) for n in sizes]
        )
        for name, dtype, sizes in rows
    ]


def _by_name(arrays: Any, only: str) -> dict[str, Any]:
    """Arrays by their names in a dict; one array by the name `only`. Raises ConfigError for other trees."""
    named = arrays if isinstance(arrays, dict) else {only: arrays}
    if not jax.tree_util.all_leaves(named.values()):
        raise ConfigError("ONNX export supports inputs and outputs that are one array, or a dict of arrays; .stablehlo any")
    return named


def load_onnx(file: Path) -> Callable[[Any], Any]:
    """The function in a file, in ONNX Runtime on a CPU: of one array, or of arrays by name; returns the same."""
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def call(inputs: Any) -> Any:
        given = {name: np.asarray(array) for name, array in _by_name(inputs, "images").items()}
        found = dict(zip(names, session.run(None, given), strict=True))
        return found["logits"] if names == ["logits"] else found

    return call


def run_onnx(file: Path, inputs: PyTree[np.ndarray]) -> PyTree[np.ndarray]:
    """The outputs of a model in ONNX Runtime on a CPU."""
    return load_onnx(file)(inputs)


CALLS = {"jit": "jaxpr", "closed_call": "call_jaxpr", "custom_jvp_call": "call_jaxpr", "custom_vjp_call": "call_jaxpr"}
"""Operations that only contain a jaxpr, and the parameter that has it."""


# -- operations -------------------------------------------------------------------------------------------------------------


def _translate(graph: Graph, jaxpr: Any, constants: Sequence[Value], given: Sequence[Value]) -> list[Value]:
    """Adds the operations of a jaxpr to the graph; returns its results."""
    known: dict[Any, Value] = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*constants, *given), strict=True))

    def read(atom: Any) -> Any:
        return known.get(atom) if not isinstance(atom, Literal) else np.asarray(atom.val, atom.aval.dtype)  # type: ignore

    for step in _needed(jaxpr):
        results = _translate_step(graph, step, [read(atom) for atom in step.invars])
        known.update(zip(step.outvars, results, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _needed(jaxpr: Any) -> list[Any]:
    """The operations that the results depend on, without those of empty results, such as the margins of zero padding."""
    wanted = {atom for atom in jaxpr.outvars if not isinstance(atom, Literal)}
    steps = []
    for step in reversed(jaxpr.eqns):
        if any(made in wanted and 0 not in made.aval.shape for made in step.outvars):
            steps.append(step)
            wanted.update(atom for atom in step.invars if not isinstance(atom, Literal))
    return steps[::-1]


def _translate_step(graph: Graph, step: Any, given: list[Any]) -> list[Value]:
    """Adds one operation to the graph; returns its results. Raises ConfigError for an unknown one."""
    name, parameters = step.primitive.name, step.params
    if name == "platform_index":  # Convolutions are exported in the form of the default platform.
        return [np.int32(parameters["platforms"].index(None))]  # type: ignore[list-item]
    if name == "cond" and not isinstance(given[0], Tensor):
        chosen = parameters["branches"][int(given[0])]
        return _translate(graph, chosen.jaxpr, chosen.consts, given[1:])
    if name in CALLS:
        inner = parameters[CALLS[name]]
        return _translate(graph, inner.jaxpr, inner.consts, given)
    if name in SIZES and any(not isinstance(n, int) for n in parameters.get("shape", (None,))):
        return [SIZES[name](graph, step)]
    if not any(isinstance(value, Tensor) for value in given):
        if step.primitive.multiple_results:
            return [np.asarray(result) for result in step.primitive.bind(*map(jnp.asarray, given), **parameters)]
        return [_constant(step, given)]
    if name not in OPERATORS:
        raise ConfigError(f"ONNX export does not support the operation {name!r}; .stablehlo supports every network")
    results = OPERATORS[name](graph, step, *given)
    return results if isinstance(results, list) else [results]


def _constant(step: Any, given: list[np.ndarray]) -> np.ndarray:
    """The result of an operation on constants; not repeated along symbolic axes, along which ONNX broadcasts."""
    shape = tuple(n if isinstance(n, int) else 1 for n in step.outvars[0].aval.shape)
    if step.primitive.name == "broadcast_in_dim":
        return np.broadcast_to(_with_axes(given[0], step.params["broadcast_dimensions"], len(shape)), shape)
    if step.primitive.name in FOLDED:
        return np.asarray(FOLDED[step.primitive.name](*given), step.outvars[0].aval.dtype).reshape(shape)
    return np.asarray(step.primitive.bind(*map(jnp.asarray, given), **step.params))


FOLDED: dict[str, Callable[..., Any]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": lambda a, b: a / b if np.issubdtype(a.dtype, np.floating) else np.asarray(np.trunc(a / b)),
    "rsqrt": lambda a: 1 / np.sqrt(a),
    "reshape": lambda a: a,
    "squeeze": lambda a: a,
    "convert_element_type": lambda a: a,
}
"""Operations on constants that NumPy computes: JAX would compile each for every shape."""


def _with_axes(array: np.ndarray, places: Sequence[int], rank: int) -> np.ndarray:
    """The array reshaped to `rank` axes, its own at `places`, others of size 1."""
    return array.reshape([array.shape[list(places).index(axis)] if axis in places else 1 for axis in range(rank)])
