"""Super-networks of the user's own class, and the import of objects named `module:name`."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from flax import nnx

from nasjax.errors import ConfigError, one_line
from nasjax.supernets.supernet import SuperNet


@dataclass(frozen=True)
class OwnConfig:
    """A super-network of your own class.

    Attributes:
      target: the class, as `module:Class`; the module is looked for in the working directory first, then on Python's path.
      arguments: keyword arguments of the class, which also gets `rngs`.
      checkpoint: a safetensors file that nasjax wrote; None: weights are initialised from a seed.
    """

    target: str | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    checkpoint: str | None = None

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


def import_object(path: str, setting: str) -> Any:
    """Imports and returns the object `path`, which is written `module:name`.

    The working directory is put on Python's path. Raises ConfigError, naming the `setting`, for another form, for a module
    or name that does not exist, and for a module that fails while it is imported.
    """
    module, _, name = path.partition(":")
    if not module or not name:
        raise ConfigError(f"{setting}={path} is not of the form module:name")
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        return getattr(import_module(module), name)
    except ModuleNotFoundError as error:
        raise ConfigError(f"{setting}={path}: there is no module {error.name!r} here or on Python's path") from None
    except AttributeError:
        raise ConfigError(f"{setting}={path}: module {module!r} has no {name!r}") from None
    except (Exception, SystemExit) as error:  # The module is the user's: importing it may raise anything.
        raise ConfigError(f"{setting}={path}: importing {module!r} failed ({one_line(error)})") from error
