"""Super-networks of the user's own class."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from flax import nnx

from nasjax.errors import ConfigError, one_line
from nasjax.registry import import_object
from nasjax.supernets.supernet import SuperNet


@dataclass(frozen=True)
class OwnConfig:
    """A super-network of your own class.

    Attributes:
      target: the class, as `module:Class`; the module is looked for in the working directory first, then on Python's path.
      arguments: keyword arguments of the class, which also gets `rngs`.
      checkpoint: a safetensors file that nasjax wrote; None: the class's own, which may be initialised from a seed.
      untrained: says that untrained weights are meant: a search on them gives no warning.
    """

    target: str | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    checkpoint: str | None = None
    untrained: bool = False

    def create(self, seed: int = 0) -> SuperNet:
        """Returns the super-network, with weights initialised from `seed`.

        Raises ConfigError if there is no such class, if it refuses its arguments, or if it is not a SuperNet.
        """
        if self.target is None:
            raise ConfigError("supernet=own needs supernet.target=module:Class; supernet=module:Class says the same")
        net_class = import_object(self.target, "supernet")
        try:
            net = net_class(**self.arguments, rngs=nnx.Rngs(seed))
        except (Exception, SystemExit) as error:
            raise ConfigError(f"supernet={self.target} cannot be made ({one_line(error)})") from error
        if not isinstance(net, SuperNet):
            raise ConfigError(f"supernet={self.target} makes a {type(net).__name__}, not a nasjax.supernets.SuperNet")
        return net
