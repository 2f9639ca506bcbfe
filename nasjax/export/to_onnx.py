"""Export to ONNX: translates the jaxpr of an extracted network, operation by operation, into ONNX's operators.

Operations on weights alone are computed here, so that a batch norm becomes a product and a sum. Inputs are (batch, height,
width, channels) images; between convolutions feature maps are (batch, channels, height, width), ONNX's layout.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.extend.core import Literal
from jaxtyping import Float

from nasjax.errors import ConfigError
from nasjax.export.onnx_steps import OPERATORS, Graph, Tensor, Value
from nasjax.export.stablehlo import input_shapes
from nasjax.supernets import SuperNet

OPSET = 17
"""The version of ONNX's operator set: of 2022, which all maintained runtimes support."""


def to_onnx(net: SuperNet, about: Any = None, batch: int | None = None) -> bytes:
    """An extracted network as an ONNX model, `images` -> `logits`, for `batch` images at a time (None: any number).

    `images` are float32 (batch, height, width, channels). Raises ConfigError for a network with other inputs, and for an
    operation that is not in OPERATORS.
    """
    import onnx

    graph, weights = nnx.split(net)
    images = input_shapes(net, batch)
    if not isinstance(images, jax.ShapeDtypeStruct) or images.dtype != jnp.float32:
        raise ConfigError("ONNX export supports networks with one float32 input only; .stablehlo supports every network")
    closed = jax.make_jaxpr(lambda images, weights: nnx.merge(graph, weights)(images))(images, weights)
    made = Graph()
    given: list[Value] = [Tensor("images"), *(np.asarray(leaf) for leaf in jax.tree.leaves(weights))]
    (logits,) = _translate(made, closed.jaxpr, [np.asarray(c) for c in closed.consts], given)
    made.add("Identity", [made.in_layout(logits, False)], name="logits")
    ends = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [batch or "batch", *shape[1:]])
        for name, shape in (("images", images.shape), ("logits", closed.out_avals[0].shape))
    ]
    drawn = onnx.helper.make_graph(made.nodes, type(net).__name__, ends[:1], ends[1:], made.constants)
    model = onnx.helper.make_model(drawn, opset_imports=[onnx.helper.make_opsetid("", OPSET)], producer_name="nasjax")
    model.ir_version = 8  # The format version of that operator set.
    onnx.checker.check_model(model)
    return model.SerializeToString()


def run_onnx(file: Path, images: Float[np.ndarray, "batch height width channels"]) -> Float[np.ndarray, "batch classes"]:
    """The outputs of a model in ONNX Runtime on a CPU."""
    import onnxruntime

    return onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"]).run(None, {"images": images})[0]


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
    if not any(isinstance(value, Tensor) for value in given):
        if step.primitive.multiple_results:
            return [np.asarray(result) for result in step.primitive.bind(*map(jnp.asarray, given), **parameters)]
        return [_constant(step, given)]
    if name not in OPERATORS:
        raise ConfigError(f"ONNX export does not support the operation {name!r}; .stablehlo supports every network")
    results = OPERATORS[name](graph, step, *given)
    return results if isinstance(results, list) else [results]


def _constant(step: Any, given: list[np.ndarray]) -> np.ndarray:
    """The result of an operation on constants; not repeated along the batch, along which ONNX broadcasts."""
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
