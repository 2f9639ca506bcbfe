"""Folders of extracted networks: `network.safetensors`, and `config.json`, from which the network is rebuilt."""

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from nasjax.errors import ConfigError, naming_damage
from nasjax.host import parse_json, read_text
from nasjax.jax_defaults import with_jax_defaults
from nasjax.program_cache import cache_programs
from nasjax.registry import settings
from nasjax.supernets.catalogue import SUPERNETS
from nasjax.supernets.checkpoints import load_weights, save_weights
from nasjax.supernets.extract import extract
from nasjax.supernets.supernet import SuperNet

EXTRACT_AGAIN = "nasjax extract writes it anew, into another folder"
"""What to do about a damaged `config.json`."""


def save_network(net: SuperNet, origin: Mapping[str, Any], arch: tuple[int, ...], folder: Path) -> None:
    """Writes an extracted network into a folder, for `load`.

    `origin` is the configuration of its super-network, `arch` the architecture that was extracted.
    """
    save_weights(net, folder / "network.safetensors", dict(net.facts))
    choices = net.space.decode(np.zeros(len(net.space.genes), np.int32))
    config = {"supernet": {**origin, "checkpoint": None}, "arch": list(arch), "choices": choices}
    (folder / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")


def is_network(folder: str | Path) -> bool:
    """Whether a folder is one of an extracted network."""
    return all((Path(folder) / name).is_file() for name in ("config.json", "network.safetensors"))


@with_jax_defaults
def load(folder: str | Path) -> SuperNet:
    """Loads the network that `nasjax extract` wrote into a folder: `load(folder)(images)` returns its logits.

    Raises ConfigError if the folder holds no such network.
    """
    saved = read_facts(folder)
    cache_programs()
    place = Path(folder) / "config.json"
    with naming_damage(place, EXTRACT_AGAIN):
        config = settings("supernet", SUPERNETS, saved["supernet"])

    def make() -> SuperNet:
        net = config.create(0)
        with naming_damage(place, EXTRACT_AGAIN):
            net.space.decode(np.array(saved["arch"], np.int32))
        return extract(net, saved["arch"])

    net = load_weights(make, Path(folder) / "network.safetensors")
    net.origin = MappingProxyType(saved["supernet"])
    return net


def read_facts(folder: str | Path) -> dict[str, Any]:
    """What `config.json` says of an extracted network: its `supernet`, `arch` (a tuple of indices) and `choices`.

    Raises ConfigError where it is missing or damaged.
    """
    file = Path(folder) / "config.json"
    if not file.exists():
        raise ConfigError(f"{folder} holds no extracted network: it has no config.json")
    with naming_damage(file, EXTRACT_AGAIN):
        saved = parse_json(read_text(file))
        supernet, arch, choices = saved["supernet"], saved["arch"], saved["choices"]
        if not isinstance(supernet, dict) or not isinstance(choices, dict) or not isinstance(arch, list):
            raise ValueError("it does not say which sub-network this is")
        if not all(isinstance(index, int) and 0 <= index < 2**31 for index in arch):
            raise ValueError(f"'arch' is {arch!r:.60}")
        return {"supernet": supernet, "arch": tuple(arch), "choices": choices}
