"""Names and layouts of the weights of Hardware-aware Transformers (github.com/mit-han-lab/hardware-aware-transformers).

Its checkpoints are fairseq's: the projections of queries, keys and values are packed into one tensor, 512 rows each.
"""

import re
from collections.abc import Mapping

import numpy as np
from flax import nnx

from nasjax.errors import ConfigError
from nasjax.supernets.families import transformer
from nasjax.supernets.published_tensor import PublishedTensor
from nasjax.supernets.stage import Stage

ENCODER, DECODER = "encoder.layers.{layer}", "decoder.layers.{layer}"

PARTS: dict[type[Stage], dict[str, str]] = {
    transformer.EncoderEmbed: {"embed.embed": "encoder.embed_tokens"},
    transformer.EncoderAttention: {
        "key_value": f"{ENCODER}.self_attn",
        "attention": f"{ENCODER}.self_attn",
        "norm": f"{ENCODER}.self_attn_layer_norm",
    },
    transformer.EncoderFeedForward: {"feed": ENCODER, "norm": f"{ENCODER}.final_layer_norm"},
    transformer.Memory: {"key_value": f"{DECODER}.encoder_attn"},
    transformer.DecoderEmbed: {"embed.embed": "decoder.embed_tokens"},
    transformer.DecoderAttention: {
        "key_value": f"{DECODER}.self_attn",
        "attention": f"{DECODER}.self_attn",
        "norm": f"{DECODER}.self_attn_layer_norm",
    },
    transformer.CrossAttention: {"attention": f"{DECODER}.encoder_attn", "norm": f"{DECODER}.encoder_attn_layer_norm"},
    transformer.DecoderFeedForward: {"feed": DECODER, "norm": f"{DECODER}.final_layer_norm"},
    transformer.WordScores: {"scores": "decoder"},
}
"""The published name of each part of a stage."""

PACKED = ("query", "key", "value")
"""The parts of a packed projection, in the order of its rows."""

LEAVES = {
    **{f"{part}.kernel": f"in_proj_weight.{part}" for part in PACKED},
    **{f"{part}.bias": f"in_proj_bias.{part}" for part in PACKED},
    "output.kernel": "out_proj.weight",
    "output.bias": "out_proj.bias",
    "scale": "weight",
    "bias": "bias",
    "table": "weight",
}
"""The name of each weight within its part, as `separated` spells it."""

FEED_LEAVES = {
    "hidden.kernel": "fc1.weight",
    "hidden.bias": "fc1.bias",
    "output.kernel": "fc2.weight",
    "output.bias": "fc2.bias",
}
"""The same of feed-forward layers."""

BUFFERS = re.compile(r"(^|\.)(version|embed_positions\.(_float_tensor|weights))$")
"""Entries of a state dict that are no weights: the sinusoids are computed."""


def published_names(net: transformer.Transformer) -> dict[str, PublishedTensor]:
    """Returns the published name and layout of every weight, by our name, packed projections `separated`.

    `net` may be abstract (`nnx.eval_shape`): only structure and shapes are read.
    """
    names: dict[str, PublishedTensor] = {}
    for i, stage in enumerate(net.stages):
        for path, variable in nnx.to_flat_state(nnx.state(stage)):
            name = ".".join(map(str, path))
            part = next(part for part in PARTS[type(stage)] if name.startswith(part + "."))
            leaf = name.removeprefix(part + ".")
            published = PARTS[type(stage)][part].format(layer=stage.place)
            there = "embed_out" if part == "scores" else (FEED_LEAVES if part == "feed" else LEAVES)[leaf]
            transposed = variable.ndim == 2 and leaf != "table"
            names[f"stages.{i}.{name}"] = PublishedTensor(f"{published}.{there}", (1, 0) if transposed else None)
    return names


def separated(published: Mapping[str, np.ndarray], net: transformer.Transformer, source: str) -> Mapping[str, np.ndarray]:
    """Returns a state dict with packed projections cut into three (`….in_proj_weight.query`), and without buffers.

    Where all embeddings are one tensor, its second and third name are left out; raises ConfigError, naming `source`, if
    they are not equal.
    """
    found: dict[str, np.ndarray] = {}
    for name, tensor in published.items():
        if BUFFERS.search(name):
            continue
        if name.endswith(("in_proj_weight", "in_proj_bias")) and len(tensor) % len(PACKED) == 0:
            rows = len(tensor) // len(PACKED)
            found |= {f"{name}.{part}": tensor[i * rows : (i + 1) * rows] for i, part in enumerate(PACKED)}
        else:
            found[name] = tensor
    first = next((name for name in found if name.endswith("encoder.embed_tokens.weight")), None)
    if net.config.shared_embeddings and first is not None:
        for name in ("decoder.embed_tokens.weight", "decoder.embed_out"):
            name = first.removesuffix("encoder.embed_tokens.weight") + name
            if name in found and not np.array_equal(found.pop(name), found[first]):
                raise ConfigError(f"{source}: {name!r} differs from {first!r}: set supernet.shared_embeddings=false")
    return found
