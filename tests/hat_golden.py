"""HAT's super-networks with the weights and sentences that the golden values of tests/golden/ were made with."""

import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from flax import nnx

from nasjax import supernets
from nasjax.supernets.checkpoints import fill
from nasjax.supernets.hat.lists import BY_LAYER, SINGLE, from_hat

FOLDER = Path(__file__).parent / "golden"
sys.path.insert(0, str(FOLDER))

import seeded  # noqa: E402

NAMES = WMT, IWSLT = "transformer_lt_wmt_en_de", "transformer_lt_iwslt_de_en"
WORDS = {WMT: (512, 512), IWSLT: (384, 512)}
SIDES = ("right", "left")
STEP = 8
SOURCE_LENGTHS, TARGET_LENGTHS = (9, 6, 4), (7, 7, 5)


@cache
def golden(name):
    """The original's values, by name."""
    with np.load(FOLDER / f"{name}.npz") as file:
        return dict(file)


def lists(name, row):
    """The row-th architecture as HAT writes it."""
    return {key: golden(name)[key][row].tolist() for key in (*SINGLE, *BY_LAYER)}


def config(name, **changes):
    """The super-network's settings, with small vocabularies."""
    source, target = WORDS[name]
    return replace(supernets.SUPERNETS[name], source_words=source, target_words=target, **changes)


def published(name):
    """A seeded state dict as HAT's checkpoints have it: packed projections, buffers, all names of shared tensors."""
    net = nnx.eval_shape(config(name).create)
    width, inner, hidden, layers = 640, 512, max(net.config.hidden), range(6)
    shapes = {"encoder.embed_tokens.weight": (WORDS[name][0], width), "decoder.embed_tokens.weight": (WORDS[name][1], width)}
    for part, attentions in (("encoder", ("self_attn",)), ("decoder", ("self_attn", "encoder_attn"))):
        for prefix in (f"{part}.layers.{layer}" for layer in layers):
            for attention in attentions:
                shapes |= {
                    f"{prefix}.{attention}.in_proj_weight": (3 * inner, width),
                    f"{prefix}.{attention}.in_proj_bias": (3 * inner,),
                    f"{prefix}.{attention}.out_proj.weight": (width, inner),
                    f"{prefix}.{attention}.out_proj.bias": (width,),
                }
            shapes |= {f"{prefix}.fc1.weight": (hidden, width), f"{prefix}.fc1.bias": (hidden,)}
            shapes |= {f"{prefix}.fc2.weight": (width, hidden), f"{prefix}.fc2.bias": (width,)}
            for norm in (*(f"{attention}_layer_norm" for attention in attentions), "final_layer_norm"):
                shapes |= {f"{prefix}.{norm}.{leaf}": (width,) for leaf in ("weight", "bias")}
    if not net.config.shared_embeddings:
        shapes["decoder.embed_out"] = (WORDS[name][1], width)
    tensors = {key: seeded.tensor(name, key, shape) for key, shape in shapes.items()}
    if net.config.shared_embeddings:
        tensors["decoder.embed_tokens.weight"] = tensors["encoder.embed_tokens.weight"]
    buffers = {f"{part}.{buffer}": np.ones(1, np.float32) for part in ("encoder", "decoder")
               for buffer in ("version", "embed_positions._float_tensor")}  # fmt: skip
    return tensors | buffers


@cache
def network(name):
    """The super-network with those weights."""
    return fill(config(name).create, published(name), "seeded")


def archs(name, net):
    """All golden architectures as vectors (14, genes)."""
    return np.stack([net.space.encode(from_hat(net, lists(name, row))) for row in range(len(golden(name)["params"]))])


def inputs(name, side):
    """Sources padded on that side, and targets."""
    source = seeded.sentences(WORDS[name][0], max(SOURCE_LENGTHS), SOURCE_LENGTHS, side)
    target = seeded.sentences(WORDS[name][1], max(TARGET_LENGTHS), TARGET_LENGTHS, "right", begin=True)
    return {"source": jnp.asarray(source, jnp.int32), "target": jnp.asarray(target, jnp.int32)}


def deviation(found, wanted):
    """The greatest difference, as a share of the scale of the wanted values."""
    return float(np.abs(np.asarray(found) - wanted).max() / np.abs(wanted).max())
