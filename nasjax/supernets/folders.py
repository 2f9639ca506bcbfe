"""Folders of extracted networks: `network.safetensors`, and `config.json`, from which the network is rebuilt."""

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from nasjax.errors import ConfigError
from nasjax.jax_defaults import with_jax_defaults
from nasjax.registry import settings
from nasjax.supernets.catalogue import SUPERNETS
from nasjax.supernets.checkpoints import load_weights, save_weights
from nasjax.supernets.extract import extract
from nasjax.supernets.supernet import SuperNet


def save_network(net: SuperNet, origin: Mapping[str, Any], arch: tuple[int, ...], folder: Path) -> None:
    """Writes an extracted network into a folder, for `load`.

    `origin` is the configuration of its super-network, `arch` the architecture that was extracted.
    """
    save_weights(net, folder / "network.safetensors", {})
    choices = net.space.decode(np.zeros(len(net.space.genes), np.int32))
    config = {"supernet": {**origin, "checkpoint": None}, "arch": list(arch), "choices": choices}
    (folder / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")


@with_jax_defaults
def load(folder: str | Path) -> SuperNet:
    """Loads the network that `nasjax extract` wrote into a folder: `load(folder)(images)` returns its logits.

    Raises ConfigError if the folder holds no such network.
    """
    file = Path(folder) / "config.json"
    if not file.is_file():
        raise ConfigError(f"{folder} holds no extracted network: it has no config.json")
    try:
        saved = json.loads(file.read_text(encoding="utf-8"))
        is_complete = {"supernet", "arch", "choices"} <= saved.keys()
    except (ValueError, AttributeError):
        is_complete = False
    if not is_complete:
        raise ConfigError(f"{file} was not written by nasjax extract: it does not say which sub-network this is")
    config = settings("supernet", SUPERNETS, saved["supernet"])
    net = load_weights(lambda: extract(config.create(0), tuple(saved["arch"])), Path(folder) / "network.safetensors")
    net.origin = MappingProxyType(saved["supernet"])
    return net
