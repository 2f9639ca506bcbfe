"""`nasjax import`: published weights of a super-network as a safetensors file."""

from pathlib import Path

from nasjax import supernets
from nasjax.cli.compose import configuration_of
from nasjax.cli.options import Arguments
from nasjax.errors import ConfigError
from nasjax.host import new_place, regular_file


def import_weights(arguments: Arguments) -> int:
    """Runs `nasjax import`."""
    (checkpoint,) = arguments.paths
    config = configuration_of(arguments)["supernet"]
    keys = [word.partition("=")[0] for word in arguments.settings]
    if "supernet" not in keys:
        raise ConfigError(f"nasjax import {checkpoint}: supernet=NAME is missing; nasjax list has the names")
    if "supernet.checkpoint" in keys:
        raise ConfigError(f"the checkpoint to import is {checkpoint}: leave supernet.checkpoint out")
    if "checkpoint" not in config:
        raise ConfigError(f"supernet={config['name']} has no weights to import")
    regular_file(checkpoint, checkpoint)
    name = arguments.options.get("out", f"{config['name']}.safetensors")
    out = new_place(f"out={name}", name)
    net = supernets.create(**{**config, "checkpoint": checkpoint})
    supernets.save_weights(net, out, {"supernet": config["name"], "source": Path(checkpoint).name})
    print(f"Weights: {out}. To use them: supernet={config['name']} supernet.checkpoint={out}")
    return 0
