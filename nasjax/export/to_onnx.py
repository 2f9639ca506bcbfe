"""ONNX: the steps of an extracted network's jaxpr, one by one, as ONNX's operators.

What weights alone decide is computed here, so that no step remains of a batch norm but a product and a sum. Pictures come in
(batch, height, width, channels); between convolutions they are kept (batch, channels, height, width), which is ONNX's order.
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
"""The version of ONNX's operators: of 2022, which every runtime still kept reads."""


def to_onnx(net: SuperNet, about: Any = None, batch: int | None = None) -> bytes:
    """An extracted network as an ONNX model, `images` -> `logits`, for `batch` images at a time (None: any number).

    `images` are float32 (batch, height, width, channels), as everywhere here. Raises ConfigError for a network that reads
    something else, and for one with an operation that is not in OPERATORS.
    """
    import onnx

    graph, weights = nnx.split(net)
    images = input_shapes(net, batch)
    if not isinstance(images, jax.ShapeDtypeStruct) or images.dtype != jnp.float32:
        raise ConfigError("ONNX export knows networks that read one float32 array; .stablehlo takes every network")
    closed = jax.make_jaxpr(lambda images, weights: nnx.merge(graph, weights)(images))(images, weights)
    made = Graph()
    given: list[Value] = [Tensor("images"), *(np.asarray(leaf) for leaf in jax.tree.leaves(weights))]
    (answer,) = _walk(made, closed.jaxpr, [np.asarray(c) for c in closed.consts], given)
    made.add("Identity", [made.in_layout(answer, False)], name="logits")
    ends = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [batch or "batch", *shape[1:]])
        for name, shape in (("images", images.shape), ("logits", closed.out_avals[0].shape))
    ]
    drawn = onnx.helper.make_graph(made.nodes, type(net).__name__, ends[:1], ends[1:], made.constants)
    model = onnx.helper.make_model(drawn, opset_imports=[onnx.helper.make_opsetid("", OPSET)], producer_name="nasjax")
    model.ir_version = 8  # That of the operators' version.
    onnx.checker.check_model(model)
    return model.SerializeToString()


def run_onnx(file: Path, images: Float[np.ndarray, "batch height width channels"]) -> Float[np.ndarray, "batch classes"]:
    """The outputs of a model in ONNX Runtime on a CPU."""
    import onnxruntime

    return onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"]).run(None, {"images": images})[0]


CALLS = {"jit": "jaxpr", "closed_call": "call_jaxpr", "custom_jvp_call": "call_jaxpr", "custom_vjp_call": "call_jaxpr"}
"""Steps that only hold others, and where."""


# -- steps ------------------------------------------------------------------------------------------------------------------


def _walk(graph: Graph, jaxpr: Any, constants: Sequence[Value], given: Sequence[Value]) -> list[Value]:
    """The results of a jaxpr, its steps added to the graph."""
    known: dict[Any, Value] = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*constants, *given), strict=True))

    def read(atom: Any) -> Any:
        return known.get(atom) if not isinstance(atom, Literal) else np.asarray(atom.val, atom.aval.dtype)  # type: ignore

    for step in _needed(jaxpr):
        found = _step(graph, step, [read(atom) for atom in step.invars])
        known.update(zip(step.outvars, found, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _needed(jaxpr: Any) -> list[Any]:
    """The steps that the results depend on; what is empty, as the margins of a padding of 0 are, is not made."""
    wanted = {atom for atom in jaxpr.outvars if not isinstance(atom, Literal)}
    steps = []
    for step in reversed(jaxpr.eqns):
        if any(made in wanted and 0 not in made.aval.shape for made in step.outvars):
            steps.append(step)
            wanted.update(atom for atom in step.invars if not isinstance(atom, Literal))
    return steps[::-1]


def _step(graph: Graph, step: Any, given: list[Any]) -> list[Value]:
    name, parameters = step.primitive.name, step.params
    if name == "platform_index":  # Convolutions are written as the library's, not as any machine's own.
        return [np.int32(parameters["platforms"].index(None))]  # type: ignore[list-item]
    if name == "cond" and not isinstance(given[0], Tensor):
        chosen = parameters["branches"][int(given[0])]
        return _walk(graph, chosen.jaxpr, chosen.consts, given[1:])
    if name in CALLS:
        inner = parameters[CALLS[name]]
        return _walk(graph, inner.jaxpr, inner.consts, given)
    if not any(isinstance(value, Tensor) for value in given):
        if step.primitive.multiple_results:
            return [np.asarray(result) for result in step.primitive.bind(*map(jnp.asarray, given), **parameters)]
        return [_constant(step, given)]
    if name not in OPERATORS:
        raise ConfigError(f"the network has a step {name!r} that ONNX export does not know; .stablehlo takes every network")
    results = OPERATORS[name](graph, step, *given)
    return results if isinstance(results, list) else [results]


def _constant(step: Any, given: list[np.ndarray]) -> np.ndarray:
    """What a step of constants results in; one that is repeated for every picture stays one, which ONNX repeats itself."""
    shape = tuple(n if isinstance(n, int) else 1 for n in step.outvars[0].aval.shape)
    if step.primitive.name == "broadcast_in_dim":
        return np.broadcast_to(_spread(given[0], step.params["broadcast_dimensions"], len(shape)), shape)
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
"""Steps of constants that NumPy does: JAX would compile each for every shape."""


def _spread(array: np.ndarray, places: Sequence[int], rank: int) -> np.ndarray:
    return array.reshape([array.shape[list(places).index(axis)] if axis in places else 1 for axis in range(rank)])
