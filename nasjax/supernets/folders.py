"""Extracted networks in folders: weights beside what they are rebuilt from."""

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from nasjax.errors import ConfigError
from nasjax.registry import settings
from nasjax.supernets.catalogue import SUPERNETS
from nasjax.supernets.checkpoints import load_weights, save_weights
from nasjax.supernets.extract import extract
from nasjax.supernets.supernet import SuperNet


def save_network(net: SuperNet, origin: Mapping[str, Any], arch: tuple[int, ...], folder: Path) -> None:
    """Writes an extracted network: `network.safetensors`, and `config.json`, which says what `load` rebuilds it from."""
    save_weights(net, folder / "network.safetensors", {})
    choices = net.space.decode(np.zeros(len(net.space.genes), np.int32))
    facts = {"supernet": {**origin, "checkpoint": None}, "arch": list(arch), "choices": choices}
    (folder / "config.json").write_text(json.dumps(facts, indent=1))


def load(folder: str | Path) -> SuperNet:
    """The network that `nasjax extract` wrote into a folder: `load(folder)(images)` are its logits.

    Raises ConfigError where the folder holds no such network.
    """
    file = Path(folder) / "config.json"
    if not file.is_file():
        raise ConfigError(f"{folder} holds no extracted network: it has no config.json")
    try:
        facts = json.loads(file.read_text())
        known = {"supernet", "arch", "choices"} <= facts.keys()
    except (ValueError, AttributeError):
        known = False
    if not known:
        raise ConfigError(f"{file} was not written by nasjax extract: it does not say which sub-network this is")
    config = settings("supernet", SUPERNETS, facts["supernet"])
    net = load_weights(lambda: extract(config.create(0), tuple(facts["arch"])), Path(folder) / "network.safetensors")
    net.origin = MappingProxyType(facts["supernet"])
    return net
