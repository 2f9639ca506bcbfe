"""Weights and images drawn from seeded NumPy generators, so that PyTorch and JAX make the same ones and none are stored.

Plain random weights give logits that hardly depend on the image, and golden values that see no mistake; hence gains above
1, damped identity branches and images with structure (make_ofa.py prints how much of the deviation is the images').
"""

import re
import zlib

import numpy as np

SEED = 20220212

FIRST_BLOCKS = {
    "ofa_mbv3_d234_e346_k357_w1.0": (0, 1, 5, 9, 13, 17),
    "ofa_mbv3_d234_e346_k357_w1.2": (0, 1, 5, 9, 13, 17),
    "ofa_proxyless_d234_e346_k357_w1.3": (0, 1, 5, 9, 13, 17, 21),
    "ofa_resnet50": (0, 4, 8, 14),
}
"""Blocks without an identity branch, by super-network."""

GAIN = 1.5
DAMPING = 0.3


def short(name: str) -> str:
    """A published name with the wrappers' repeated components left out: `bn.bn.weight` is `bn.weight`."""
    return re.sub(r"\b(conv|bn|linear)(\.\1)+\b", r"\1", name)


def tensor(supernet: str, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The weight of that (short) name, in PyTorch's layout: float32."""
    rng = np.random.default_rng([SEED, zlib.crc32(name.encode())])
    normal = rng.standard_normal(shape)
    uniform = rng.random(shape)
    values = next(make for ending, make in MAKERS if name.endswith(ending))(normal, uniform)
    block = re.match(r"blocks\.(\d+)\.", name)
    last_norm = name.endswith(("point_linear.bn.weight", "conv3.bn.weight"))
    if block and last_norm and int(block[1]) not in FIRST_BLOCKS[supernet]:
        values = values * DAMPING
    return values.astype(np.float32)


def _spread(normal: np.ndarray, uniform: np.ndarray) -> np.ndarray:
    """Weights of a layer, by the number of its inputs; a vector is a bias."""
    if normal.ndim == 1:
        return 0.2 * normal
    return GAIN * normal / np.sqrt(np.prod(normal.shape[1:]))


MAKERS = (
    ("running_mean", lambda normal, uniform: 0.2 * normal),
    ("running_var", lambda normal, uniform: 0.7 + 0.8 * uniform),
    ("bn.weight", lambda normal, uniform: 0.8 + 0.4 * uniform),
    ("bn.bias", lambda normal, uniform: 0.1 * normal),
    ("layer_norm.weight", lambda normal, uniform: 0.8 + 0.4 * uniform),
    ("layer_norm.bias", lambda normal, uniform: 0.1 * normal),
    ("_matrix", lambda normal, uniform: np.eye(len(normal)) + 0.3 * normal / np.sqrt(len(normal))),
    ("", _spread),
)
"""How a weight is drawn, by the ending of its name; the first that fits."""


def images(number: int, size: int) -> np.ndarray:
    """Images (number, size, size, 3), float32: a random grid of 4 x 4 patches, plus noise."""
    rng = np.random.default_rng([SEED, size])
    grid = rng.standard_normal((number, 4, 4, 3))
    patches = np.repeat(np.repeat(grid, -(-size // 4), axis=1), -(-size // 4), axis=2)[:, :size, :size]
    return (patches + 0.3 * rng.standard_normal((number, size, size, 3))).astype(np.float32)


def sentences(words: int, time: int, lengths: tuple[int, ...], side: str, begin: bool = False) -> np.ndarray:
    """Tokens (sentences, time), int64: random ones that are not special, filled up with 1 at the `side`.

    The last token of each is 2; with `begin` the first is 2 instead, as in a target that is shifted by one.
    """
    rng = np.random.default_rng([SEED, words, time])
    tokens = np.full((len(lengths), time), 1)
    for row, length in zip(tokens, lengths, strict=True):
        own = slice(0, length) if side == "right" else slice(time - length, time)
        row[own] = rng.integers(4, words, length)
        row[own][0 if begin else -1] = 2
    return tokens
