"""Things of the user's, named `module:name`: super-networks of their own class."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from flax import nnx

from nasjax.errors import ConfigError
from nasjax.supernets.supernet import SuperNet


@dataclass(frozen=True)
class OwnConfig:
    """A super-network of your own: `target` is `module:Class`, called with `arguments` and `rngs`.

    The module is looked for in the working directory, then where Python looks. `checkpoint`: a safetensors file of ours.
    """

    target: str | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    checkpoint: str | None = None

    def create(self, seed: int = 0) -> SuperNet:
        """Raises ConfigError, in one line, where there is no such class or it makes something else."""
        if self.target is None:
            raise ConfigError("supernet=own needs supernet.target=module:Class; supernet=module:Class says the same")
        maker = found(self.target, "supernet")
        try:
            made = maker(**self.arguments, rngs=nnx.Rngs(seed))
        except (TypeError, ValueError) as error:
            raise ConfigError(f"supernet={self.target} cannot be made ({_line(error)})") from error
        if not isinstance(made, SuperNet):
            raise ConfigError(f"supernet={self.target} makes a {type(made).__name__}, not a nasjax.supernets.SuperNet")
        return made


def found(place: str, kind: str) -> Any:
    """What `module:name` names. Raises ConfigError, in one line, where it is not there."""
    module, _, name = place.partition(":")
    if not module or not name:
        raise ConfigError(f"{kind}={place} is not of the form module:name")
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        return getattr(import_module(module), name)
    except ModuleNotFoundError as error:
        raise ConfigError(f"{kind}={place}: there is no module {error.name!r} here or on Python's path") from None
    except AttributeError:
        raise ConfigError(f"{kind}={place}: module {module!r} has no {name!r}") from None
    except Exception as error:  # Whatever a person's module does while it is imported.
        raise ConfigError(f"{kind}={place}: importing {module!r} failed ({_line(error)})") from error


def _line(error: Exception) -> str:
    """An exception in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
