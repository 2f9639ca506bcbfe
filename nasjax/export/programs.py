"""What is exported of an extracted network: one program, or an encoder-decoder's encoder and decoding step.

The arrays of an encoder-decoder have the same names in every format. `encoder` reads `source` (batch, time), and returns
`known` (batch, time), which of its tokens are no padding, and the keys and values that decoder layer i reads of the
encoder, `memory_keys_i` and `memory_values_i` (batch, inner, time of one or several encoder layers). `step` reads these, the
last `tokens` of all beams (batch, beams), and the cache: the decoder's own `keys_i` and `values_i` (batch, inner, places),
which places each beam sees, `visible` (batch, beams, places), and the number of the `step` (batch,). It returns `logits`
(batch, beams, words) and the cache of the next step: `next_keys_i`, …, `next_visible`, `next_step`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import export
from jaxtyping import Array, PyTree

from nasjax.supernets import SuperNet
from nasjax.supernets.families.transformer import Transformer
from nasjax.supernets.transformer_layers import PAD, KeysValues

Arrays = dict[str, Any]
"""Arrays by name."""

NEXT = "next_"
"""What the names of a step's new cache begin with: an ONNX graph's outputs have other names than its inputs."""


class Program(NamedTuple):
    """`function(net, inputs)`, and shapes of its inputs."""

    function: Callable[[SuperNet, Any], Any]
    inputs: PyTree[jax.ShapeDtypeStruct]


def programs(net: SuperNet, batch: int | None = None) -> dict[str, Program]:
    """The programs of an extracted network by name, for `batch` examples at a time (None: any number, a symbolic size)."""
    if not isinstance(net, Transformer):
        return {"network": whole(net, batch)}
    beams, places, *sizes = export.symbolic_shape("beams, places, batch, time", constraints=["places >= beams"])
    memory = jax.eval_shape(lambda given: _encoder(net, given), _source(batch, *sizes))
    cache = jax.eval_shape(lambda memory: empty_cache(memory, beams, places), memory)
    tokens = {"tokens": jax.ShapeDtypeStruct((batch or sizes[0], beams), jnp.int32)}
    # Sizes of one scope, with its constraints, must all be among the sizes of a program's inputs.
    source = _source(batch, *export.symbolic_shape("batch, time"))
    return {"encoder": Program(_encoder, source), "step": Program(_step, tokens | memory | cache)}


def _source(batch: int | None, any_batch: Any, time: Any) -> dict[str, jax.ShapeDtypeStruct]:
    return {"source": jax.ShapeDtypeStruct((batch or any_batch, time), jnp.int32)}


def whole(net: SuperNet, batch: int | None = None) -> Program:
    """The forward pass of a network."""
    size = export.symbolic_shape("batch")[0] if batch is None else batch
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((size, *leaf.shape[1:]), leaf.dtype), net.inputs(1))
    return Program(lambda net, inputs: net(inputs), shapes)


def empty_cache(memory: Mapping[str, Any], beams: Any, places: Any) -> Arrays:
    """The cache of the first step, with places for as many tokens as all beams together may have."""
    shapes = {name.removeprefix("memory_"): array.shape for name, array in memory.items() if name != "known"}
    batch = memory["known"].shape[0]
    layers = {name: jnp.zeros((*shape[:2], places)) for name, shape in shapes.items()}
    return layers | {"step": jnp.zeros(batch, jnp.int32), "visible": jnp.zeros((batch, beams, places), bool)}


def _encoder(net: SuperNet, given: Arrays) -> Arrays:
    inputs = {"source": given["source"], "target": given["source"]}  # The target's length only is read.
    carry, _ = net.forward(inputs, _arch(net), net.stored(), stop=net.first_repeated)
    return {"known": carry["known"]} | _named("memory_", carry["memory"])


def _step(net: SuperNet, given: Arrays) -> Arrays:
    cache = {"layers": _layers("", given), "step": given["step"], "visible": given["visible"]}
    carry = {"known": given["known"], "memory": _layers("memory_", given), "cache": cache}
    (logits, carry), _ = net.forward((given["tokens"], carry), _arch(net), net.stored(), start=net.first_repeated)
    cache = carry["cache"]
    following = _named("", cache["layers"]) | {"step": cache["step"], "visible": cache["visible"]}
    return {"logits": logits} | {f"{NEXT}{name}": array for name, array in following.items()}


def _arch(net: SuperNet) -> tuple[int, ...]:
    return (0,) * len(net.space.genes)


def _named(prefix: str, layers: tuple[KeysValues, ...]) -> Arrays:
    """Keys and values of layers by name; those that are left out, which have no places, have none."""
    pairs = [(f"{prefix}{part}_{i}", array) for i, pair in enumerate(layers, 1) for part, array in pair._asdict().items()]
    return {name: array for name, array in pairs if array.shape[2] != 0}


def _layers(prefix: str, given: Arrays) -> tuple[KeysValues, ...]:
    """The layers that `_named` has named."""
    number = sum(name.startswith(f"{prefix}keys_") for name in given)
    return tuple(KeysValues(*(given[f"{prefix}{part}_{i}"] for part in KeysValues._fields)) for i in range(1, number + 1))


@dataclass(frozen=True)
class ExportedRunner:
    """A `nasjax.tasks.Runner`, for `beam_search`, of an encoder and a step that were loaded from files.

    Each is a function of named arrays. Those of ONNX take values only: search within `jax.disable_jit()`. `fixed_batch`: as
    many sentences as `encode` got are in every step, since files may have been made for one number only.
    """

    fixed_batch: ClassVar[bool] = True

    encoder: Callable[[Arrays], Mapping[str, Any]]
    one_step: Callable[[Arrays], Mapping[str, Any]]

    def encode(self, inputs: PyTree) -> PyTree:
        memory = self.encoder({"source": inputs["source"]})
        layers = empty_cache(memory, 1, inputs["target"].shape[1])
        rest = {name: layers.pop(name) for name in ("step", "visible")}
        return {"memory": memory, "cache": {"layers": layers, **rest}}

    def step(self, tokens: PyTree, carry: PyTree) -> tuple[PyTree, PyTree]:
        cache = dict(carry["cache"])
        layers = cache.pop("layers")
        found = self.one_step({"tokens": tokens, **carry["memory"], **layers, **cache})
        new = {"layers": {name: found[NEXT + name] for name in layers}, **{name: found[NEXT + name] for name in cache}}
        return found["logits"], carry | {"cache": new}

    def __call__(self, inputs: PyTree) -> Array:
        """Logits of the word that follows each of the target (batch, time, words), fed token by token."""
        carry, logits = self.encode(inputs), []
        for tokens in jnp.asarray(inputs["target"]).T:
            one, carry = self.step(tokens[:, None], carry)
            logits.append(one)
        return jnp.concatenate(logits, axis=1)


def without_padding(net: SuperNet, inputs: PyTree, outputs: PyTree[np.ndarray]) -> PyTree[np.ndarray]:
    """A network's outputs; of an encoder-decoder, 0 where the target is padding: of which each way makes its own."""
    if not isinstance(net, Transformer):
        return outputs
    return np.where((inputs["target"] != PAD)[..., None], outputs, 0)
