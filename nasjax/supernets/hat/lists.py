"""Architectures as Hardware-aware Transformers and DyNAS-T write them: numbers, and lists with one entry a layer."""

from collections.abc import Mapping
from typing import Any

from nasjax.errors import ConfigError
from nasjax.space import Option
from nasjax.supernets.families.transformer import Transformer

SINGLE = {
    "encoder_embed_dim": "encoder_width",
    "decoder_embed_dim": "decoder_width",
    "decoder_layer_num": "decoder_depth",
}
"""Entries with one number, and the gene that it sets."""

BY_LAYER = {
    "encoder_ffn_embed_dim": "encoder_hidden_",
    "encoder_self_attention_heads": "encoder_heads_",
    "decoder_ffn_embed_dim": "decoder_hidden_",
    "decoder_self_attention_heads": "decoder_heads_",
    "decoder_ende_attention_heads": "cross_heads_",
    "decoder_arbitrary_ende_attn": "cross_layers_",
}
"""Lists with a number for each layer, and how the names of their genes begin."""

ATTENDED = {-1: 1, 1: 2, 2: 3}
"""`decoder_arbitrary_ende_attn`, and the number of last encoder layers that it means."""


def from_hat(net: Transformer, lists: Mapping[str, Any]) -> dict[str, Option]:
    """Converts HAT's numbers and lists to named choices, which `net.space.encode` takes.

    HAT's files hold them in two parts, `encoder` and `decoder`; DyNAS-T has them side by side, single numbers in lists of
    one. Decoder layers beyond the depth may be left out. Raises ConfigError for an entry that is missing, unexpected, of
    another length or not allowed.
    """
    given = {**lists.get("encoder", {}), **lists.get("decoder", {})} or dict(lists)
    layers = given.pop("encoder_layer_num", net.config.encoder_layers)
    if layers not in (net.config.encoder_layers, [net.config.encoder_layers]):
        raise ConfigError(f"encoder_layer_num must be {net.config.encoder_layers}, not {layers}")
    if set(given) != {*SINGLE, *BY_LAYER}:
        wanted = ", ".join((*SINGLE, *BY_LAYER))
        raise ConfigError(f"the entries of an architecture are {wanted}, not {', '.join(map(str, given)) or 'none'}")
    choices: dict[str, Option] = {gene: _only(name, given[name]) for name, gene in SINGLE.items()}
    if choices["decoder_depth"] not in net.config.decoder_depths:
        allowed = ", ".join(map(str, net.config.decoder_depths))
        raise ConfigError(f"decoder_layer_num cannot be {choices['decoder_depth']!r}; allowed: {allowed}")
    for name, gene in BY_LAYER.items():
        number = net.config.encoder_layers if name.startswith("encoder") else choices["decoder_depth"]
        if not isinstance(given[name], list | tuple) or len(given[name]) < number:  # type: ignore[operator]
            raise ConfigError(f"{name} must be a list of {number} numbers, one a layer, not {given[name]}")
        for layer, option in enumerate(given[name][:number]):  # type: ignore[misc]
            if name == "decoder_arbitrary_ende_attn" and option not in list(ATTENDED):
                raise ConfigError(f"{name} cannot hold {option!r}; allowed: {', '.join(map(str, ATTENDED))}")
            choices[f"{gene}{layer + 1}"] = ATTENDED[option] if name == "decoder_arbitrary_ende_attn" else option
    return net.space.decode(net.space.encode(choices))


def _only(name: str, value: Any) -> Option:
    """A number, or that of a list of one."""
    if isinstance(value, list | tuple):
        if len(value) != 1:
            raise ConfigError(f"{name} must be one number, not {value}")
        return value[0]
    return value
